/* A TCP connection that is full both ways and checked on both sides: stream listen PORT | stream connect ADDRESS PORT [KIB-PER-SECOND [SECONDS]]
 *
 * What each side sends is a sequence of words that the other side makes itself and compares with. KIB-PER-SECOND limits what this side
 * sends (0: no limit). The connecting side ends it, after SECONDS or on SIGTERM: each side sends its last word, a mark, shuts down and
 * reads to the other's end. Last line: what went each way, how many words were wrong; status 0 only if all was right to the end. */
#include "load.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

#define BLOCK 65536
static int connection;
static unsigned long limit;
static uint64_t deadline, sent, received, wrong;
static atomic_int ending; /* this side is to send no more */
static int ended;         /* the other side's end came */

static void fill(uint64_t *words, uint64_t side, uint64_t first)
{
    for (int i = 0; i < BLOCK / 8; i++)
        words[i] = (side << 56) + (first + i) * 0x9E3779B97F4A7C15;
}

/* All of it, however long it takes: a connection of a guest that is stopped for a while stands still. */
static int send_all(const void *data, size_t length)
{
    while (length) {
        ssize_t done = send(connection, data, length, MSG_NOSIGNAL);
        if (done < 0 && errno != EINTR)
            return -1;
        if (done > 0) {
            data = (const char *)data + done;
            length -= done;
        }
    }
    return 0;
}

static void *sender(void *argument)
{
    static uint64_t block[BLOCK / 8];
    uint64_t side = *(uint64_t *)argument, began = clock_ns(CLOCK_MONOTONIC);
    while (!stopping && !ending && !(deadline && clock_ns(CLOCK_MONOTONIC) > deadline)) {
        if (limit && sent / limit * 1000000 / 1024 > (clock_ns(CLOCK_MONOTONIC) - began) / 1000) {
            usleep(2000);
            continue;
        }
        fill(block, side, sent / 8);
        if (send_all(block, sizeof block)) {
            say("@stream error=send what=%s after=%lu", strerror(errno), sent);
            exit(1);
        }
        sent += sizeof block;
    }
    if (shutdown(connection, SHUT_WR))
        err(1, "shutdown");
    return NULL;
}

/* Reads to the end, comparing. A block arrives in pieces. */
static void receive(uint64_t side)
{
    static uint64_t block[BLOCK / 8], expected[BLOCK / 8];
    size_t have = 0;
    for (;;) {
        ssize_t done = recv(connection, (char *)block + have, BLOCK - have, 0);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0) {
            say("@stream error=receive what=%s after=%lu", strerror(errno), received);
            exit(1);
        }
        if (done == 0)
            break;
        have += done;
        if (have < BLOCK)
            continue;
        fill(expected, side, received / 8);
        if (memcmp(block, expected, BLOCK) && wrong++ < 10)
            say("@stream wrong-block at=%lu", received);
        received += BLOCK;
        have = 0;
    }
    ended = have == 0;
}

static int meet(int count, char **arguments)
{
    int yes = 1, listening = !strcmp(arguments[1], "listen");
    int made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(number(arguments[listening ? 2 : 3])) };
    if (!listening) {
        if (inet_pton(AF_INET, arguments[2], &address.sin_addr) != 1)
            errx(2, "not an address: %s", arguments[2]);
        limit = count > 4 ? number(arguments[4]) : 0;
        deadline = count > 5 && number(arguments[5]) ? clock_ns(CLOCK_MONOTONIC) + number(arguments[5]) * 1000000000 : 0;
        if (connect(made, (struct sockaddr *)&address, sizeof address))
            err(1, "connect");
        return made;
    }
    limit = count > 3 ? number(arguments[3]) : 0;
    setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(made, (struct sockaddr *)&address, sizeof address) || listen(made, 1))
        err(1, "listen");
    say("@stream listening");
    int accepted = accept(made, NULL, NULL);
    if (accepted < 0 && stopping) {
        say("@stream none");
        exit(0);
    }
    if (accepted < 0)
        err(1, "accept");
    close(made);
    return accepted;
}

int main(int count, char **arguments)
{
    if (count < 3 || (strcmp(arguments[1], "listen") && count < 4))
        errx(2, "usage: stream listen PORT [KIB-PER-SECOND] | stream connect ADDRESS PORT [KIB-PER-SECOND [SECONDS]]");
    stop_on_signal();
    connection = meet(count, arguments);
    uint64_t side = strcmp(arguments[1], "listen") != 0, began = clock_ns(CLOCK_MONOTONIC);
    pthread_t thread;
    pthread_create(&thread, NULL, sender, &side);
    receive(1 - side);
    ending = 1;
    pthread_join(thread, NULL);
    double seconds = (clock_ns(CLOCK_MONOTONIC) - began) / 1e9;
    say("@stream sent=%lu received=%lu wrong=%lu ended=%d seconds=%.1f to-mibps=%.1f from-mibps=%.1f", sent, received, wrong, ended, seconds,
        sent / seconds / 1048576, received / seconds / 1048576);
    return wrong || !ended;
}
