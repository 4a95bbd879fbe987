/* Has a program that speaks generic netlink (keepalived's checkers) ask tests/support/ipvs_double.py instead of
   the kernel: the socket named in IPVS_DOUBLE. For LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MOST 4096

static char redirected[MOST];

static int is_redirected(int fd) { return fd >= 0 && fd < MOST && redirected[fd]; }

#define REAL(name) ((typeof(name) *)dlsym(RTLD_NEXT, #name))

int socket(int domain, int type, int protocol) {
    const char *path = getenv("IPVS_DOUBLE");
    if (domain != AF_NETLINK || protocol != NETLINK_GENERIC || !path)
        return REAL(socket)(domain, type, protocol);
    struct sockaddr_un place = {.sun_family = AF_UNIX};
    strncpy(place.sun_path, path, sizeof place.sun_path - 1);
    int fd = REAL(socket)(AF_UNIX, SOCK_SEQPACKET | (type & (SOCK_CLOEXEC | SOCK_NONBLOCK)), 0);
    if (fd >= MOST || (fd >= 0 && connect(fd, (struct sockaddr *)&place, sizeof place))) {
        REAL(close)(fd);
        errno = EPROTONOSUPPORT;
        return -1;
    }
    if (fd >= 0)
        redirected[fd] = 1;
    return fd;
}

int close(int fd) {
    if (is_redirected(fd))
        redirected[fd] = 0;
    return REAL(close)(fd);
}

int bind(int fd, const struct sockaddr *address, socklen_t length) {
    return is_redirected(fd) ? 0 : REAL(bind)(fd, address, length);
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t length) {
    return is_redirected(fd) ? 0 : REAL(setsockopt)(fd, level, name, value, length);
}

static void as_kernel(void *address, socklen_t *length) {
    if (!address || !length)
        return;
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    memcpy(address, &kernel, *length < sizeof kernel ? *length : sizeof kernel);
    *length = sizeof kernel;
}

int getsockname(int fd, struct sockaddr *address, socklen_t *length) {
    if (!is_redirected(fd))
        return REAL(getsockname)(fd, address, length);
    as_kernel(address, length);
    return 0;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    if (!is_redirected(fd))
        return REAL(sendmsg)(fd, message, flags);
    struct msghdr plain = *message;
    plain.msg_name = NULL;
    plain.msg_namelen = 0;
    plain.msg_control = NULL;
    plain.msg_controllen = 0;
    return REAL(sendmsg)(fd, &plain, flags);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    if (!is_redirected(fd))
        return REAL(recvmsg)(fd, message, flags);
    void *name = message->msg_name;
    socklen_t length = message->msg_namelen;
    message->msg_name = NULL;
    message->msg_namelen = 0;
    ssize_t got = REAL(recvmsg)(fd, message, flags);
    as_kernel(name, &length);
    message->msg_name = name;
    message->msg_namelen = name ? length : 0;
    return got;
}
