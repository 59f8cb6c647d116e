/* gpumgr restart SVC */
#include "cli/cli.h"
#include "cli/text.h"

int cmd_restart(struct cli *cli)
{
	const char *service = cli_word(cli, 0);
	char *clean = text_clean(service, false);
	return cli_act(cli, cli_path(cli, "/gpu/service/", service, "/restart"), NULL,
		cli_format(cli, "restart %s", cli_keep(cli, clean)));
}
