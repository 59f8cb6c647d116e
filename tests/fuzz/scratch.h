/* A folder in memory for targets that need files; empty when the process begins. */
#pragma once

/* The same one for the life of the process. */
const char *scratch_folder(void);
