/* reference MODE PORT - the least that a server of each model can be, in C: what forkd is measured
 * against. A limit, no product: no options, no logging, no recovery from errors.
 *
 *   fork     a child for each connection, SIGCHLD ignored
 *   prefork  eight children that block in accept on one shared listener
 *   udp      one process, recvfrom and sendto
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

static char buffer[65536];

static void echo(int connection) {
    ssize_t came;
    while ((came = read(connection, buffer, sizeof buffer)) > 0)
        for (char *at = buffer; came > 0;) {
            ssize_t went = write(connection, at, came);
            if (went <= 0) return;
            at += went;
            came -= went;
        }
}

static int listening(int type, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, fd = socket(AF_INET, type, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) { perror("bind"); exit(1); }
    if (type == SOCK_STREAM) listen(fd, 4096);
    return fd;
}

static void serve_fork(int listener) {
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

static void serve_prefork(int listener) {
    for (int i = 0; i < 8; i++)
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

static void serve_udp(int socket) {
    for (;;) {
        struct sockaddr_storage from;
        socklen_t length = sizeof from;
        ssize_t came = recvfrom(socket, buffer, sizeof buffer, 0, (struct sockaddr *)&from, &length);
        if (came >= 0) sendto(socket, buffer, came, 0, (struct sockaddr *)&from, length);
    }
}

int main(int argc, char **argv) {
    if (argc != 3) { fprintf(stderr, "usage: reference fork|prefork|udp PORT\n"); return 64; }
    int port = atoi(argv[2]);
    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    if (!strcmp(argv[1], "fork")) serve_fork(listening(SOCK_STREAM, port));
    if (!strcmp(argv[1], "prefork")) serve_prefork(listening(SOCK_STREAM, port));
    if (!strcmp(argv[1], "udp")) serve_udp(listening(SOCK_DGRAM, port));
    return 64;
}
