/* Sends prepared frames through an interface, round and round, at an even rate.
 *
 *     flood INTERFACE PACKETS_A_SECOND PACKETS < frames
 *
 * A frame on standard input is its length, two bytes in host order, and its bytes. Prints how many went out
 * and the microseconds that took. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#define MOST_FRAMES 1024
#define BATCH 64 /* in one call: the queue of a processor holds a thousand, and others' packets are in it too */
#define PAUSE_NS 200000

static uint8_t bytes[MOST_FRAMES][2048];
static struct iovec parts[MOST_FRAMES];
static struct mmsghdr messages[MOST_FRAMES];

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static int read_frames(void)
{
    uint16_t length;
    int count = 0;
    while (count < MOST_FRAMES && fread(&length, 2, 1, stdin) == 1) {
        if (length > sizeof bytes[0] || fread(bytes[count], length, 1, stdin) != 1)
            exit(2);
        parts[count] = (struct iovec){bytes[count], length};
        messages[count].msg_hdr.msg_iov = &parts[count];
        messages[count].msg_hdr.msg_iovlen = 1;
        count++;
    }
    return count;
}

static int open_interface(const char *name)
{
    struct sockaddr_ll where = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(name)};
    int yes = 1, made = socket(AF_PACKET, SOCK_RAW, 0);
    if (made < 0 || bind(made, (struct sockaddr *)&where, sizeof where) < 0) {
        perror(name);
        exit(2);
    }
    setsockopt(made, SOL_PACKET, PACKET_QDISC_BYPASS, &yes, sizeof yes);
    return made;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    int made = open_interface(argv[1]), count = read_frames(), next = 0;
    int64_t rate = atoll(argv[2]), wanted = atoll(argv[3]), sent = 0, start_us = now_us();
    if (!count)
        return 2;
    while (sent < wanted) {
        int64_t due = (now_us() - start_us) * rate / 1000000 - sent;
        if (due <= 0) {
            nanosleep(&(struct timespec){0, PAUSE_NS}, NULL);
            continue;
        }
        int64_t most = wanted - sent < BATCH ? wanted - sent : BATCH;
        int some = due < most ? (int)due : (int)most;
        if (some > count - next)
            some = count - next;
        int done = sendmmsg(made, &messages[next], (unsigned)some, 0);
        if (done < 0) {
            perror("sendmmsg");
            return 1;
        }
        sent += done;
        next = (next + done) % count;
    }
    printf("%lld %lld\n", (long long)sent, (long long)(now_us() - start_us));
    return 0;
}
