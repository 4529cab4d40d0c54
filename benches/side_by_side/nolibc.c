/* nolibc PORT - a child for each connection without a C library: the limit of the model. No heap, no thread-local data, no
 * relocations; the child touches its stack and the page that the text is on.
 *
 * For x86-64: cc -O2 -static -nostdlib -fno-stack-protector
 */
#include <asm/unistd.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>

static long call(long number, long a, long b, long c, long d, long e) {
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e;
    __asm__ volatile("syscall" : "+a"(number) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
    return number;
}

static void echo(long connection) {
    char buffer[2048];
    for (;;) {
        long came = call(__NR_read, connection, (long)buffer, sizeof buffer, 0, 0);
        if (came <= 0 || call(__NR_write, connection, (long)buffer, came, 0, 0) != came) return;
    }
}

/* the kernel enters with argc on the stack, and the words of the command line behind it */
__attribute__((used)) static void serve(long *stack) {
    char *digits = (char *)stack[2];
    unsigned port = 0, one = 1;
    for (; *digits; digits++) port = port * 10 + (*digits - '0');
    struct sockaddr_in address = {AF_INET, (port >> 8 | port << 8) & 0xffff, {0x0100007f}, {0}};
    struct { void (*handler)(int); unsigned long flags, restorer, mask; } ignore = {(void (*)(int))1, 0, 0, 0};
    call(__NR_rt_sigaction, SIGCHLD, (long)&ignore, 0, 8, 0);
    long listener = call(__NR_socket, AF_INET, SOCK_STREAM, 0, 0, 0);
    call(__NR_setsockopt, listener, SOL_SOCKET, SO_REUSEADDR, (long)&one, sizeof one);
    if (call(__NR_bind, listener, (long)&address, sizeof address, 0, 0) < 0) call(__NR_exit_group, 1, 0, 0, 0, 0);
    call(__NR_listen, listener, 4096, 0, 0, 0);
    for (;;) {
        long connection = call(__NR_accept4, listener, 0, 0, 0, 0);
        if (connection < 0) continue;
        if (call(__NR_clone, SIGCHLD, 0, 0, 0, 0) == 0) {
            echo(connection);
            call(__NR_exit_group, 0, 0, 0, 0, 0);
        }
        call(__NR_close, connection, 0, 0, 0, 0);
    }
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call serve\n");
