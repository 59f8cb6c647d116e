/* gpumgr phase N|NAME */
#include "cli/cli.h"
#include "cli/text.h"

int cmd_phase(struct cli *cli)
{
	const char *phase = cli_word(cli, 0);
	char *clean = text_clean(phase, false);
	return cli_act(cli, cli_path(cli, "/gpu/prepare-phase/", phase, ""), NULL,
		cli_format(cli, "phase %s", cli_keep(cli, clean)));
}
