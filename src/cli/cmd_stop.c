/* gpumgr stop SVC [--force] */
#include "cli/cli.h"
#include "cli/text.h"

int cmd_stop(struct cli *cli)
{
	const char *service = cli_word(cli, 0);
	const char *query = is_given(&cli->arguments, OPTION_FORCE) ? "force=1" : NULL;
	char *clean = text_clean(service, false);
	return cli_act(cli, cli_path(cli, "/gpu/service/", service, "/stop"), query,
		cli_format(cli, "stop %s", cli_keep(cli, clean)));
}
