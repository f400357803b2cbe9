/*
 * The library's service, of which a process has one: how functions of the API begin, which
 * faults the hub sets for them, and the one lock of the library's objects.
 */
#ifndef SERVICE_H
#define SERVICE_H

#include <stdbool.h>
#include <stdint.h>

#define API __attribute__((visibility("default")))

/* Begins a function of the API: reports the call to the hub, and applies the fault that the hub set. */
#define CALL(type)                                                                                 \
    do {                                                                                           \
        intptr_t refusal;                                                                          \
        report_call(__func__);                                                                     \
        if (shows_fault(__func__, &refusal))                                                       \
            return (type)refusal;                                                                  \
    } while (0)

/* A function with nothing to do. Its arguments, whatever they are, stay where they are. */
#define NO_OP(name)                                                                                \
    API intptr_t name(void)                                                                        \
    {                                                                                              \
        CALL(intptr_t);                                                                            \
        return 0;                                                                                  \
    }

/* A function that makes an object that only has to exist. */
#define BARE_OBJECT(name)                                                                          \
    API void *name(void)                                                                           \
    {                                                                                              \
        static char object;                                                                        \
        CALL(void *);                                                                              \
        return &object;                                                                            \
    }

void report_call(const char *function);

/* Whether the call is to fail, and returning what. A call that is to hang stays in here. */
bool shows_fault(const char *function, intptr_t *refusal);

/* Stand around every observer's callback, so that calls made inside one are known. */
void callback_begins(void);
void callback_ends(void);

/* One lock guards every object: the service, connections, tracks, senders. It is held for
 * moments, never in a callback, nor while waiting for the hub's answer. */
void lock_objects(void);
void unlock_objects(void);

/* Under the lock. */
bool service_is_open(void);
bool service_has_video(void);
const char *service_app_id(void);

#endif
