/* See README.md. Event waits are epoll_wait in a loop around the monotonic clock, sleeps are absolute, as in glibc's own
 * condition variables and in most runtimes. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void say(const char *word)
{
    printf("%s %lld %lld %lld\n", word, now_ns(CLOCK_REALTIME), now_ns(CLOCK_MONOTONIC), now_ns(CLOCK_BOOTTIME));
    fflush(stdout);
}

static void wait_event(long long due_ns)
{
    int poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event;
    for (long long left_ns; (left_ns = due_ns - now_ns(CLOCK_MONOTONIC)) > 0;)
        epoll_wait(poller, &event, 1, (int)((left_ns + 999999) / 1000000));
    close(poller);
}

static void wait_sleep(long long due_ns)
{
    struct timespec due = {due_ns / 1000000000, due_ns % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) == EINTR)
        ;
}

static void make_child(char **argv, int executes)
{
    fflush(stdout);
    if (fork() == 0) {
        if (executes)
            execl(argv[0], argv[0], "once", NULL);
        say("child");
        _exit(0);
    }
    wait(NULL);
}

int main(int argc, char **argv)
{
    char line[256], kind[16];
    int ms;
    say(argc > 1 ? "child" : "ready");
    if (argc > 1)
        return 0;
    while (fgets(line, sizeof line, stdin)) {
        if (!strcmp(line, "clocks\n")) {
            say("clocks");
        } else if (sscanf(line, "wait %15s %d", kind, &ms) == 2) {
            long long due_ns = now_ns(CLOCK_MONOTONIC) + ms * 1000000LL;
            puts("waiting");
            fflush(stdout);
            (strcmp(kind, "event") ? wait_sleep : wait_event)(due_ns);
            puts("waited");
            fflush(stdout);
        } else {
            make_child(argv, !strcmp(line, "exec\n"));
        }
    }
    return 0;
}
