/* For check_schema.py: prints the JSON schema; or, with file names, which of them the parser accepts. */
#include <stdio.h>
#include <stdlib.h>

#include "config/config.h"

static int print_verdict(const char *path)
{
	struct config *config = NULL;
	struct config_report report;
	int r = config_load(path, &config, &report);
	printf("%s\n", r == 0 ? "accepted" : "refused");
	config_report_finish(&report);
	config_free(config);
	return 0;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		print_verdict(argv[i]);
	if (argc > 1)
		return 0;
	char *text = config_schema();
	if (text == NULL)
		return 1;
	puts(text);
	free(text);
	return 0;
}
