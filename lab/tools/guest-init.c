// The first process of a Linux guest in a test: counts on the console, then resets the machine. Beside that it shows which PCI
// devices there are, reads randomness, counts on hvc0 and sends back what comes on the first port that is no terminal.
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
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

static void show_devices(void) {
    DIR *directory = opendir("/sys/bus/pci/devices");
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        char path[300], id[16] = "";
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/device", entry->d_name);
        FILE *file = fopen(path, "r");
        if (file && fgets(id, sizeof id, file)) printf("guest-init: pci %s %s", entry->d_name, id);
        if (file) fclose(file);
    }
    if (directory) closedir(directory);
}

static void show_randomness(void) {
    unsigned char bytes[64];
    int random = open("/dev/hwrng", O_RDONLY);
    if (random < 0) return;
    ssize_t count = read(random, bytes, sizeof bytes);
    int different = 0;
    for (ssize_t i = 1; i < count; i++) different |= bytes[i] != bytes[0];
    printf("guest-init: random bytes %s\n", count > 0 && different ? "came" : "did not come");
    close(random);
}

// In a process of its own, for ever.
static void echo_port(void) {
    char path[32], bytes[4096];
    int port = -1;
    for (int device = 0; device < 8 && port < 0; device++) {
        snprintf(path, sizeof path, "/dev/vport%dp1", device);
        port = open(path, O_RDWR);
    }
    if (port < 0 || fork() != 0) return;
    for (;;) {
        ssize_t count = read(port, bytes, sizeof bytes);
        for (ssize_t done = 0; done < count;) {
            ssize_t written = write(port, bytes + done, (size_t)(count - done));
            if (written > 0) done += written;
        }
        if (count <= 0) usleep(1000);
    }
}

int main(void) {
    mkdir("/dev", 0755);
    mkdir("/proc", 0755);
    mount("dev", "/dev", "devtmpfs", 0, 0);
    mkdir("/sys", 0755);
    mount("proc", "/proc", "proc", 0, 0);
    mount("sysfs", "/sys", "sysfs", 0, 0);
    freopen("/dev/console", "r+", stdout);
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("guest-init: hello");
    show_devices();
    show_randomness();
    echo_port();
    int terminal = open("/dev/hvc0", O_RDWR | O_NOCTTY);
    for (int i = 0; i < 40; i++) {
        struct timespec now, pause = { .tv_nsec = 100000000 };
        clock_gettime(CLOCK_MONOTONIC, &now);
        printf("guest-init: count %d at %ld.%03ld\n", i, (long)now.tv_sec, now.tv_nsec / 1000000);
        if (terminal >= 0) dprintf(terminal, "terminal: count %d\n", i);
        nanosleep(&pause, NULL);
    }
    show("/proc/interrupts");
    puts("guest-init: bye");
    sync();
    usleep(200000);
    reboot(RB_AUTOBOOT);
    return 0;
}
