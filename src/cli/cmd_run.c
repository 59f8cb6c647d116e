/* gpumgr run: holds a lease while a command runs. There are no leases yet; it says so and runs nothing. */
#include "cli/cli.h"

int cmd_run(struct cli *cli)
{
	const struct arguments *arguments = &cli->arguments;
	if (!arguments->has_dashes || arguments->n_before_dashes == arguments->n_words)
		return cli_usage(cli, "run what? gpumgr run [SVC ...] -- CMD ...");
	return cli_fail(CLI_NO_LEASE, "leases are not in this version: the command was not started");
}
