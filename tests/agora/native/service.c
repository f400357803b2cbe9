#define _GNU_SOURCE /* gettid */
#include "service.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "abi.h"
#include "link.h"

enum { MAX_FAULTS = 64, MAX_EARLY_CALLS = 256, PREFIX = sizeof "agora_" - 1 };

struct fault {
    char name[96];
    bool hangs;
    intptr_t returns;
};

struct call {
    const char *name;
    int thread, in_callback;
};

static struct {
    pthread_mutex_t lock; /* of all objects of the library: see service.h */
    struct link *link;    /* NULL: no hub to report calls to */
    bool open, video;
    char *app_id;
    struct fault faults[MAX_FAULTS];
    int fault_count;
    struct call early[MAX_EARLY_CALLS]; /* made before there was a hub; later ones are not kept */
    int early_count;
} service = {.lock = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local int callback_depth;

void lock_objects(void)
{
    pthread_mutex_lock(&service.lock);
}

void unlock_objects(void)
{
    pthread_mutex_unlock(&service.lock);
}

void callback_begins(void)
{
    callback_depth++;
}

void callback_ends(void)
{
    callback_depth--;
}

bool service_is_open(void)
{
    return service.open;
}

bool service_has_video(void)
{
    return service.video;
}

const char *service_app_id(void)
{
    return service.app_id;
}

/* ---- calls ---- */

static void send_call(const struct call *call)
{
    link_send(service.link, "call", "tiii", call->name, call->thread, call->in_callback,
              (int)getpid());
}

static void send_early_calls(void)
{
    for (int i = 0; i < service.early_count; i++)
        send_call(&service.early[i]);
    service.early_count = 0;
}

void report_call(const char *function)
{
    const struct call call = {function + PREFIX, gettid(), callback_depth > 0};
    lock_objects();
    if (service.link)
        send_call(&call);
    else if (service.early_count < MAX_EARLY_CALLS)
        service.early[service.early_count++] = call;
    unlock_objects();
}

/* ---- faults ---- */

static struct fault *find_fault(const char *name)
{
    for (int i = 0; i < service.fault_count; i++)
        if (strcmp(service.faults[i].name, name) == 0)
            return &service.faults[i];
    return NULL;
}

static bool set_fault(const char *name, bool hangs, intptr_t returns)
{
    lock_objects();
    struct fault *fault = find_fault(name);
    bool fits = strlen(name) < sizeof fault->name && (fault || service.fault_count < MAX_FAULTS);
    if (fits && !fault)
        fault = &service.faults[service.fault_count++];
    if (fits) {
        strcpy(fault->name, name);
        fault->hangs = hangs;
        fault->returns = returns;
    }
    unlock_objects();
    return fits;
}

bool shows_fault(const char *function, intptr_t *refusal)
{
    lock_objects();
    const struct fault *fault = find_fault(function + PREFIX);
    const struct fault shown = fault ? *fault : (struct fault){0};
    unlock_objects();
    while (shown.hangs)
        pause();
    *refusal = shown.returns;
    return fault;
}

static void write_to_nowhere(void)
{
    volatile int *volatile nowhere = NULL; /* so that the compiler does not optimise it away */
    *nowhere = 0;
}

/* Whether the message sets a fault of calls, from now on. */
static bool heed_fault(const struct message *message)
{
    const char *kind = message->words[0];
    if (strcmp(kind, "hang") == 0 && message->count > 1)
        return set_fault(message->words[1], true, 0);
    if (strcmp(kind, "fail") == 0 && message->count > 2)
        return set_fault(message->words[1], false, strtol(message->words[2], NULL, 10));
    if (strcmp(kind, "abort") == 0)
        abort();
    if (strcmp(kind, "segv") == 0)
        write_to_nowhere();
    return false;
}

/* On the link's own thread. */
static void obey(void *owner, struct link *link, const struct message *message)
{
    (void)owner;
    if (heed_fault(message))
        link_send(link, "applied", "");
}

/* ---- life ---- */

/* What the hub answers to a new service; until then it may set faults. */
static int await_answer(struct link *link)
{
    struct message message;
    while (link_receive(link, &message)) {
        if (strcmp(message.words[0], "inited") == 0 && message.count > 1)
            return atoi(message.words[1]);
        heed_fault(&message);
    }
    return NOT_INITIALIZED;
}

static void introduce(struct link *link, const struct service_config *config)
{
    link_send(link, "service", "itiiii", (int)getpid(), config->app_id, config->channel_profile,
              config->audio_scenario, config->use_string_uid, config->enable_video != 0);
    lock_objects();
    service.link = link;
    send_early_calls();
    unlock_objects();
}

static void close_service(void)
{
    lock_objects();
    if (service.link)
        link_shut(service.link);
    service.link = NULL;
    service.open = service.video = false;
    unlock_objects();
}

static int open_service(const struct service_config *config)
{
    struct link *link = link_open();
    if (!link)
        return NOT_INITIALIZED;
    introduce(link, config);
    int answer = await_answer(link);
    if (!link_follow(link, obey, NULL))
        answer = NOT_INITIALIZED;
    if (answer != OK) {
        close_service();
        return answer;
    }
    lock_objects();
    service.app_id = strdup(config->app_id ? config->app_id : "");
    service.video = config->enable_video != 0;
    service.open = true;
    unlock_objects();
    return OK;
}

/* ---- the API ---- */

BARE_OBJECT(agora_service_create)
BARE_OBJECT(agora_service_get_agora_parameter)
BARE_OBJECT(agora_service_create_media_node_factory)

API int agora_service_initialize(void *handle, const struct service_config *config)
{
    CALL(int);
    lock_objects();
    bool open = service.open;
    unlock_objects();
    if (open)
        return INVALID_STATE;
    if (!handle || !config)
        return INVALID_ARGUMENT;
    int result = open_service(config);
    intptr_t refusal; /* the hub's first faults come with its answer, and may mean this call */
    if (!shows_fault(__func__, &refusal))
        return result;
    close_service();
    return (int)refusal;
}

API int agora_service_release(void)
{
    CALL(int);
    close_service();
    return OK;
}
