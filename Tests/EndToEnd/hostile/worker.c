// A worker image that means harm: it answers --describe as an honest one does, and speaks on its session as MODE says. The build gives
// it DESCRIPTION (text) and HELLO (bytes of an honest hello message) in hello.h, and MODE.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "hello.h"

enum { SESSION = 3, LENT = 102, DONE = 110, POWERED_OFF = 115 };
static uint32_t generation;

static void put32(uint8_t *at, uint32_t value) { memcpy(at, &value, 4); }
static void put16(uint8_t *at, uint16_t value) { memcpy(at, &value, 2); }

static void say(const void *bytes, size_t length, int descriptors)
{
    struct iovec part = { (void *)bytes, length };
    union { struct cmsghdr header; char room[CMSG_SPACE(sizeof(int) * 16)]; } control = { 0 };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
    if (descriptors) {
        message.msg_control = control.room;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * descriptors);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * descriptors);
        for (int index = 0; index < descriptors; index++)
            ((int *)CMSG_DATA(header))[index] = 0;
    }
    sendmsg(SESSION, &message, MSG_NOSIGNAL);
}

static void report(uint16_t kind, uint32_t sequence, const void *payload, size_t length)
{
    uint8_t bytes[256] = { 0 };
    put32(bytes, 0x4E544142);
    put16(bytes + 4, 1);
    put16(bytes + 6, kind);
    put32(bytes + 8, generation);
    put32(bytes + 12, sequence);
    memcpy(bytes + 20, payload, length);
    say(bytes, 20 + length, 0);
}

int main(int count, char **words)
{
    for (int index = 1; index < count; index++) {
        if (!strcmp(words[index], "--describe")) {
            puts(DESCRIPTION);
            return 0;
        }
        if (!strcmp(words[index], "--generation") && index + 1 < count)
            generation = (uint32_t)strtoul(words[index + 1], NULL, 10);
    }

    static uint8_t hello[sizeof(HELLO)], order[1 << 18], large[200 << 10];
    memcpy(hello, HELLO, sizeof hello);
    put32(hello + 8, generation);
    const char *mode = MODE;
#define IS(name) (!strcmp(mode, name))
    if (IS("noise")) {
        int random = open("/dev/urandom", O_RDONLY);
        for (int index = 0; index < 50; index++)
            say(order, (size_t)read(random, order, 1 + (size_t)index * 97), 0);
    } else if (IS("short-hello")) {
        say(hello, sizeof hello / 2, 0);
    } else if (IS("header-only")) {
        say(hello, 19, 0);
    } else if (IS("long-hello")) {
        memcpy(large, hello, sizeof hello);
        say(large, sizeof hello + 1, 0);
    } else if (IS("huge-count")) {
        memset(hello + 20, 0xff, 4);
        say(hello, sizeof hello, 0);
    } else if (IS("over-long")) {
        int room = 1 << 20;
        setsockopt(SESSION, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
        memcpy(large, hello, sizeof hello);
        say(large, sizeof large, 0);
    } else if (IS("empty")) {
        say(hello, 0, 0);
    } else if (IS("surplus-descriptors")) {
        say(hello, sizeof hello, 3);
    } else if (IS("missing-descriptors")) {
        put16(hello + 16, 2);
        say(hello, sizeof hello, 0);
    } else if (IS("closes")) {
        close(SESSION);
        sleep(60);
    } else if (IS("wrong-magic")) {
        hello[0] ^= 1;
        say(hello, sizeof hello, 0);
    } else if (IS("flood-first")) {
        for (;;)
            report(DONE, 0, "", 0);
    } else {
        say(hello, sizeof hello, 0);
        while (1) {
            ssize_t length = recv(SESSION, order, sizeof order, 0);
            if (length <= 0)
                return 0;
            uint32_t sequence;
            memcpy(&sequence, order + 12, 4);
            if (IS("wrong-report"))
                report(DONE, sequence, "", 0);
            else if (IS("holds-too-few"))
                report(LENT, sequence, "\2\0\0\0", 4);
            else if (IS("surplus-payload"))
                report(LENT, sequence, "\5\0\0\0\0", 5);
            else if (IS("unknown-report"))
                report(999, sequence, "", 0);
            else if (IS("powered-off"))
                report(POWERED_OFF, 0, "", 0);
            else if (IS("flood"))
                for (;;)
                    report(DONE, 0, "", 0);
            else if (IS("descriptors-in-answer")) {
                put16(hello + 6, DONE);
                put32(hello + 12, sequence);
                say(hello, 20, 16);
            }
        }
    }
    sleep(60);
    return 0;
}
