/* A numbered stream for a console or a port: count PATH TAG LINES-PER-SECOND
 *
 * Lines `#TAG NUMBER CHECK`, from 0 on, one write each; CHECK follows from NUMBER. A reader that sees every number once has lost nothing
 * and got nothing twice. On SIGTERM the stream ends with `#TAG end COUNT`, and so says standard output. */
#include "load.h"

int main(int count, char **arguments)
{
    if (count < 4)
        errx(2, "usage: count PATH TAG LINES-PER-SECOND");
    stop_on_signal();
    int file = open(arguments[1], O_WRONLY | O_NOCTTY | O_CLOEXEC);
    if (file < 0)
        err(1, "%s", arguments[1]);
    uint64_t pause_us = 1000000 / number(arguments[3]), next;
    char line[96];
    for (next = 0;; next++) {
        int last = stopping;
        int length = last ? snprintf(line, sizeof line, "#%s end %lu\n", arguments[2], next)
                          : snprintf(line, sizeof line, "#%s %lu %08x\n", arguments[2], next, (uint32_t)mix(next));
        for (int done = 0; done < length;) {
            ssize_t written = write(file, line + done, length - done);
            if (written < 0 && errno != EINTR)
                err(1, "%s", arguments[1]);
            if (written > 0)
                done += written;
        }
        if (last)
            break;
        usleep(pause_us);
    }
    say("@count tag=%s lines=%lu", arguments[2], next);
    return 0;
}
