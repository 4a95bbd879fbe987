/* Lets keepalived's checkers run on a kernel without IPVS: its commands over socket options succeed and do
   nothing. For LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
#include <sys/socket.h>

#define FIRST (64 + 1024 + 64)
#define IS_IPVS(level, name) ((level) == 0 && (name) >= FIRST && (name) < FIRST + 16)

int getsockopt(int fd, int level, int name, void *value, socklen_t *length) {
    static int (*real)(int, int, int, void *, socklen_t *);
    if (IS_IPVS(level, name)) {
        if (value && length)
            memset(value, 0, *length);
        return 0;
    }
    if (!real)
        real = (int (*)(int, int, int, void *, socklen_t *))dlsym(RTLD_NEXT, "getsockopt");
    return real(fd, level, name, value, length);
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t length) {
    static int (*real)(int, int, int, const void *, socklen_t);
    if (IS_IPVS(level, name))
        return 0;
    if (!real)
        real = (int (*)(int, int, int, const void *, socklen_t))dlsym(RTLD_NEXT, "setsockopt");
    return real(fd, level, name, value, length);
}
