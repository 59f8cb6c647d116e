/*
 * A container driver and the engine that it drives, with libcurl between them. Input: a byte of options, what is asked
 * of the driver (four bytes), then the engine's answers, see engine.c. Whatever the engine says, the driver keeps to
 * what it promises its listener, and leaves nothing behind.
 */
#include <signal.h>

#include "base/log.h"
#include "driver/driver.h"
#include "driver/record.h"
#include "engine.h"
#include "fuzz.h"
#include "scratch.h"

#define ACTIONS 4
#define TURNS 24 /* for each action */
#define INDEX 7

enum {
	OPTION_COMPOSE = 1,
	OPTION_LIFE = 2, /* there is a record of the life that the engine tells of by itself */
	OPTION_START = 4, /* or of a start of it that was asked for */
	OPTION_STOPPING = 8, /* and it was about to be stopped */
};

struct report_counts {
	bool is_inside; /* of a call: nothing may be reported from there */
	bool is_destroyed;
	uint64_t run;
	bool is_starting, is_over;
	unsigned n_finds, n_found, n_checks, n_healths;
};

static uv_loop_t loop;
static struct engine engine;
static struct report_counts counts;

/* ---- the listener ---- */

static void check_report(size_t service, const char *text)
{
	FUZZ_CHECK(service == INDEX && !counts.is_inside && !counts.is_destroyed);
	FUZZ_CHECK(text == NULL || strlen(text) < 8192);
}

static void check_run(size_t service, uint64_t run, const char *text)
{
	check_report(service, text);
	FUZZ_CHECK(run == counts.run && !counts.is_over);
}

static void handle_found(void *context, size_t service, const struct driver_sighting *sighting)
{
	(void)context;
	check_report(service, sighting->text);
	FUZZ_CHECK(sighting->pid >= 0 && (sighting->alive || !sighting->is_external));
	if (sighting->is_untold)
		FUZZ_CHECK(!sighting->alive && sighting->pid == 0 && sighting->text != NULL);
	counts.n_found++;
	FUZZ_CHECK(counts.n_found <= counts.n_finds);
}

static void handle_changed(void *context, size_t service)
{
	(void)context;
	check_report(service, NULL);
}

static void handle_started(void *context, size_t service, uint64_t run, pid_t pid)
{
	(void)context;
	check_run(service, run, NULL);
	FUZZ_CHECK(counts.is_starting && pid >= 0);
	counts.is_starting = false;
}

static void handle_start_failed(
	void *context, size_t service, uint64_t run, enum driver_failure failure, const char *text)
{
	(void)context;
	check_run(service, run, text);
	FUZZ_CHECK(counts.is_starting && failure <= DRIVER_UNTOLD && text != NULL && text[0] != '\0');
	counts.is_starting = false;
	counts.is_over = true;
}

static void handle_leader_ended(void *context, size_t service, uint64_t run, const char *text)
{
	(void)context;
	check_run(service, run, text);
}

static void handle_gone(void *context, size_t service, uint64_t run, bool by_others, const char *text)
{
	(void)context;
	(void)by_others;
	check_run(service, run, text);
	FUZZ_CHECK(!counts.is_starting && text != NULL && text[0] != '\0');
	counts.is_over = true;
}

static void handle_hindered(void *context, size_t service, uint64_t run, bool is_over, const char *text)
{
	(void)context;
	check_run(service, run, text);
	FUZZ_CHECK(is_over || (text != NULL && text[0] != '\0'));
}

static void handle_stop_refused(void *context, size_t service, uint64_t run, const char *text)
{
	(void)context;
	check_run(service, run, text);
	FUZZ_CHECK(text != NULL && text[0] != '\0');
}

static void handle_main_pid(void *context, size_t service, uint64_t run, pid_t pid)
{
	(void)context;
	check_run(service, run, NULL);
	FUZZ_CHECK(pid >= 0);
}

static void handle_health(void *context, size_t service, uint64_t run, bool healthy, const char *text)
{
	(void)context;
	(void)run;
	(void)healthy;
	check_report(service, text);
	counts.n_healths++;
	FUZZ_CHECK(counts.n_healths <= counts.n_checks);
}

static void handle_trouble(void *context, const char *subject, bool is_over, const char *text)
{
	(void)context;
	FUZZ_CHECK(strcmp(subject, engine.address) == 0 && text != NULL && text[0] != '\0' && !counts.is_destroyed);
	(void)is_over;
}

static const struct driver_listener listener = {
	.handle_found = handle_found,
	.handle_changed = handle_changed,
	.handle_started = handle_started,
	.handle_start_failed = handle_start_failed,
	.handle_leader_ended = handle_leader_ended,
	.handle_gone = handle_gone,
	.handle_hindered = handle_hindered,
	.handle_stop_refused = handle_stop_refused,
	.handle_main_pid = handle_main_pid,
	.handle_health = handle_health,
	.handle_trouble = handle_trouble,
};

/* ---- the daemon's part ---- */

static bool has_run(void)
{
	return counts.run != 0 && !counts.is_over;
}

static void find(struct driver_service *service, bool healthy)
{
	counts.n_finds++;
	service->ops->find(service, healthy);
}

static void begin_run(struct driver_service *service, bool adopts)
{
	counts.run++;
	counts.is_over = false;
	counts.is_starting = !adopts;
	if (adopts)
		service->ops->adopt(service, counts.run, 0);
	else
		service->ops->start(service, counts.run, NULL);
}

static void act(struct driver_service *service, uint8_t action)
{
	char text[256];
	counts.is_inside = true;
	if (action % 8 == 0 || (action % 8 < 3 && has_run()))
		find(service, action & 0x80);
	else if (action % 8 < 3)
		begin_run(service, action % 8 == 2);
	else if (action % 8 == 3 && has_run())
		service->ops->stop(service, action & 0x80);
	else if (action % 8 == 4 && has_run()) {
		counts.n_checks++;
		service->ops->check(service, counts.run);
	}
	service->ops->owns(service, 1);
	if (service->ops->get_address(service, text, sizeof(text)))
		FUZZ_CHECK(text[0] != '\0' && strlen(text) < 64 && fuzz_is_printable(text));
	if (service->ops->get_obstacle(service, text, sizeof(text)))
		FUZZ_CHECK(text[0] != '\0');
	counts.is_inside = false;
}

static void run_for_a_while(void)
{
	for (unsigned i = 0, quiet = 0; i < TURNS && quiet < 4; i++) {
		uv_run(&loop, UV_RUN_NOWAIT);
		quiet = engine_turn(&engine) ? 0 : quiet + 1;
	}
}

static void end(struct driver_service *service)
{
	counts.is_inside = counts.is_destroyed = true;
	driver_destroy(service);
	engine_end(&engine);
	for (unsigned i = 0; i < 16 && uv_loop_alive(&loop); i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	FUZZ_CHECK(!uv_loop_alive(&loop));
}

static void remove_files(void)
{
	static const char *const names[] = { "box.log", "box.copied", "box.run" };
	char path[256];
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", scratch_folder(), names[i]);
		remove(path);
	}
}

/* What a daemon before us may have left. */
static void leave_record(uint8_t options)
{
	char *path = record_path(scratch_folder(), "box");
	FUZZ_CHECK(path != NULL);
	if (options & OPTION_LIFE)
		FUZZ_CHECK(record_write_container(path, ENGINE_ID, ENGINE_BORN, false) == 0);
	else if (options & OPTION_START)
		FUZZ_CHECK(record_write_start(path, ENGINE_ID, ENGINE_BORN_BEFORE) == 0);
	if (options & OPTION_STOPPING)
		record_note_stop(path);
	free(path);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	log_setup(LOG_LEVEL_ERROR, false);
	signal(SIGPIPE, SIG_IGN);
	FUZZ_CHECK(uv_loop_init(&loop) == 0);
	engine_open(&engine);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = fuzz_input(data, size);
	uint8_t options = fuzz_u8(&input), actions[ACTIONS];
	struct driver_shared shared = { 0 };
	const struct driver_environment environment = {
		.loop = &loop,
		.listener = &listener,
		.shared = &shared,
		.log_dir = scratch_folder(),
		.state_dir = scratch_folder(),
		.instance = "fuzz",
		.hurry = 1000,
	};
	static char name[] = "box", project[] = "mine", compose_service[] = "paint";
	struct service_config config = { .name = name, .driver = DRIVER_CONTAINER };
	config.container = (struct container_config){ .name = options & OPTION_COMPOSE ? NULL : name,
		.compose_project = options & OPTION_COMPOSE ? project : NULL,
		.compose_service = options & OPTION_COMPOSE ? compose_service : NULL,
		.engine = engine.address,
		.stop_timeout_ms = 1000 };
	config.health.kind = PROBE_CONTAINER;
	struct driver_service *service = NULL;
	struct error err = { 0 };
	fuzz_take(&input, actions, sizeof(actions));
	counts = (struct report_counts){ 0 };
	engine_begin(&engine, &input);
	leave_record(options);
	FUZZ_CHECK(driver_create(&environment, &config, INDEX, &service, &err) == 0);
	for (size_t i = 0; i < ACTIONS; i++) {
		act(service, actions[i]);
		run_for_a_while();
	}
	end(service);
	FUZZ_CHECK(shared.dockers == NULL && shared.owners == NULL);
	remove_files();
	return 0;
}
