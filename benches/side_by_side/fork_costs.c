/* fork_costs - what a fork and the child's exit cost more, in microseconds, for each thing that the parent has, and for each page
 * that the child touches: with and without by turns, the least of several runs of each.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, FORKS = 100, RUNS = 15, FIRST = 100, MAPPINGS = 1000, PAGES = 4000, DESCRIPTORS = 500, TOUCHED = 200 };

/* The kernel maps 16 pages of a file for one fault. */
enum { WINDOW = 16 * PAGE };

static char *block, *file;
static char *touched; /* by the child, if it isn't null: so many, each as far from the last as `step` says */
static int step, writes;

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1e6 + at.tv_nsec / 1e3;
}

static double forks(void) {
    double begin = now();
    for (int i = 0; i < FORKS; i++) {
        pid_t child = fork();
        if (child == 0) {
            for (int page = 0; touched && page < TOUCHED; page++) {
                volatile char *at = touched + (size_t)page * step;
                if (writes) *at = 1;
                else (void)*at;
            }
            _exit(0);
        }
        waitpid(child, 0, 0);
    }
    return (now() - begin) / FORKS;
}

static void mappings(int with) {
    mprotect(block, PAGES * PAGE, PROT_READ | PROT_WRITE);
    for (int i = 0; with && i < MAPPINGS / 2; i++) mprotect(block + (2 * i + 1) * PAGE, PAGE, PROT_READ);
}

static void pages(int with) {
    madvise(block, PAGES * PAGE, MADV_DONTNEED);
    for (int i = 0; with && i < PAGES; i++) block[i * PAGE] = 1;
}

static void descriptors(int with) {
    close_range(FIRST, ~0U, 0);
    for (int i = 0; with && i < DESCRIPTORS; i++) fcntl(0, F_DUPFD, FIRST);
}

static void copies(int with) {
    pages(1);
    touched = with ? block : 0, step = PAGE, writes = 1;
}

static void windows(int with) {
    pages(0);
    touched = with ? file : 0, step = WINDOW, writes = 0;
}

static void cost(const char *what, int count, void (*have)(int with)) {
    double least[2] = {1e9, 1e9};
    for (int run = 0; run < 2 * RUNS; run++) {
        have(run % 2);
        double took = forks();
        if (took < least[run % 2]) least[run % 2] = took;
    }
    have(0);
    printf("%s\t%.2f\n", what, (least[1] - least[0]) / count);
}

int main(void) {
    block = mmap(0, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int memory = memfd_create("file", 0);
    if (block == MAP_FAILED || memory < 0 || ftruncate(memory, TOUCHED * WINDOW) < 0) return 1;
    madvise(block, PAGES * PAGE, MADV_NOHUGEPAGE);
    file = mmap(0, TOUCHED * WINDOW, PROT_READ, MAP_SHARED | MAP_POPULATE, memory, 0);
    /* its pages are there, and not in the page tables of a child */
    mmap(file, TOUCHED * WINDOW, PROT_READ, MAP_PRIVATE | MAP_FIXED, memory, 0);
    cost("a mapping", MAPPINGS, mappings);
    cost("an anonymous page that is present", PAGES, pages);
    cost("an open descriptor", DESCRIPTORS, descriptors);
    cost("in the child, the first write to a private page", TOUCHED, copies);
    cost("in the child, the first touch of 16 pages of a file", TOUCHED, windows);
    return 0;
}
