/* gpumgr release-all */
#include "cli/cli.h"

int cmd_release_all(struct cli *cli)
{
	return cli_act(cli, "/gpu/release-all", NULL, "release-all");
}
