/* reference MODE PORT [N] - the least that a server of each model can be, in C: what forkd is measured against. A limit, no
 * product: no options, no logging, no recovery from errors.
 *
 *   fork     a child for each connection, SIGCHLD ignored
 *   splice   the same, whose bytes stay in the kernel
 *   prefork  N children that block in accept on one shared listener (8)
 *   thread   a detached thread for each connection
 *   event    N workers (1), each one thread with epoll and a listener of its own; what can't be written at once is waited
 *            for by poll
 *   udp      one process, recvfrom and sendto
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static char buffer[65536];

static void echo_by(int connection, char *buffer, size_t size) {
    ssize_t came;
    while ((came = read(connection, buffer, size)) > 0)
        for (char *at = buffer; came > 0;) {
            ssize_t went = write(connection, at, came);
            if (went <= 0) return;
            at += went;
            came -= went;
        }
}

static void echo(int connection) { echo_by(connection, buffer, sizeof buffer); }

static int listening(int type, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, fd = socket(AF_INET, type, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) { perror("bind"); exit(1); }
    if (type == SOCK_STREAM) listen(fd, 4096);
    return fd;
}

static void echo_in_kernel(int connection) {
    int ends[2];
    ssize_t came;
    if (pipe(ends) < 0) return;
    while ((came = splice(connection, 0, ends[1], 0, 65536, SPLICE_F_MOVE)) > 0)
        while (came > 0) {
            ssize_t went = splice(ends[0], 0, connection, 0, came, SPLICE_F_MOVE);
            if (went <= 0) return;
            came -= went;
        }
}

static void serve_fork(int listener, void (*echo)(int)) {
    for (;;) {
        int connection = accept(listener, 0, 0);
        if (connection < 0) continue;
        if (fork() == 0) {
            echo(connection);
            _exit(0);
        }
        close(connection);
    }
}

static void serve_prefork(int listener, int workers) {
    for (int i = 0; i < workers; i++)
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (;;) {
                int connection = accept(listener, 0, 0);
                if (connection < 0) continue;
                echo(connection);
                close(connection);
            }
        }
    for (;;) pause();
}

static void *thread(void *connection) {
    char own[65536];
    echo_by((int)(long)connection, own, sizeof own);
    close((int)(long)connection);
    return 0;
}

static void serve_thread(int listener) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 128 * 1024);
    for (;;) {
        pthread_t id;
        int connection = accept(listener, 0, 0);
        if (connection >= 0 && pthread_create(&id, &attributes, thread, (void *)(long)connection)) close(connection);
    }
}

/* whether the connection goes on */
static int turn(int connection) {
    ssize_t came = read(connection, buffer, sizeof buffer);
    if (came <= 0) return 0;
    for (char *at = buffer; came > 0;) {
        ssize_t went = write(connection, at, came);
        if (went < 0) {
            struct pollfd full = {.fd = connection, .events = POLLOUT};
            if (poll(&full, 1, -1) < 0) return 0;
            continue;
        }
        at += went;
        came -= went;
    }
    return 1;
}

static void serve_event(int port, int workers) {
    for (int i = 1; i < workers; i++)
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            break;
        }
    int listener = listening(SOCK_STREAM, port);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, ready[64];
    int queue = epoll_create1(0);
    epoll_ctl(queue, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(queue, ready, 64, -1);
        for (int i = 0; i < count; i++) {
            if (ready[i].data.fd != listener) {
                if (!turn(ready[i].data.fd)) close(ready[i].data.fd);
                continue;
            }
            event.data.fd = accept4(listener, 0, 0, SOCK_NONBLOCK);
            if (event.data.fd >= 0) epoll_ctl(queue, EPOLL_CTL_ADD, event.data.fd, &event);
        }
    }
}

static void serve_udp(int socket) {
    for (;;) {
        struct sockaddr_storage from;
        socklen_t length = sizeof from;
        ssize_t came = recvfrom(socket, buffer, sizeof buffer, 0, (struct sockaddr *)&from, &length);
        if (came >= 0) sendto(socket, buffer, came, 0, (struct sockaddr *)&from, length);
    }
}

int main(int argc, char **argv) {
    if (argc < 3) { fprintf(stderr, "usage: reference fork|splice|prefork|thread|event|udp PORT [N]\n"); return 64; }
    char *mode = argv[1];
    int port = atoi(argv[2]), count = argc > 3 ? atoi(argv[3]) : 0;
    struct rlimit files = {200000, 200000};
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    if (!strcmp(mode, "fork")) serve_fork(listening(SOCK_STREAM, port), echo);
    if (!strcmp(mode, "splice")) serve_fork(listening(SOCK_STREAM, port), echo_in_kernel);
    if (!strcmp(mode, "prefork")) serve_prefork(listening(SOCK_STREAM, port), count ? count : 8);
    if (!strcmp(mode, "thread")) serve_thread(listening(SOCK_STREAM, port));
    if (!strcmp(mode, "event")) serve_event(port, count ? count : 1);
    if (!strcmp(mode, "udp")) serve_udp(listening(SOCK_DGRAM, port));
    return 64;
}
