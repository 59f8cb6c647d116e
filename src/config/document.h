/*
 * From bytes to a YAML document: one document, UTF-8, within bounds that keep any file cheap to read.
 */
#pragma once

#include <yaml.h>

#include "config/config.h"

/*
 * 0: `document` is the caller's (yaml_document_delete). -EINVAL: the report says why. -ENOMEM.
 */
int document_load(const char *text, size_t length, yaml_document_t *document, struct config_report *report);
