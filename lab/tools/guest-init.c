// The first process of a Linux guest in a test: counts on the console, then resets the machine.
#include <stdio.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void show(const char *path) {
    char text[4096];
    FILE *file = fopen(path, "r");
    size_t length = file ? fread(text, 1, sizeof text, file) : 0;
    fwrite(text, 1, length, stdout);
    if (file) fclose(file);
}

int main(void) {
    mkdir("/dev", 0755);
    mkdir("/proc", 0755);
    mount("dev", "/dev", "devtmpfs", 0, 0);
    mount("proc", "/proc", "proc", 0, 0);
    freopen("/dev/console", "r+", stdout);
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("guest-init: hello");
    for (int i = 0; i < 40; i++) {
        struct timespec now, pause = { .tv_nsec = 100000000 };
        clock_gettime(CLOCK_MONOTONIC, &now);
        printf("guest-init: count %d at %ld.%03ld\n", i, (long)now.tv_sec, now.tv_nsec / 1000000);
        nanosleep(&pause, NULL);
    }
    show("/proc/interrupts");
    puts("guest-init: bye");
    sync();
    usleep(200000);
    reboot(RB_AUTOBOOT);
    return 0;
}
