/* A stand-in for mysqld in `cargo lab fault --selftest`: it exports the same mutexes, greets who connects to 127.0.0.1:PORT while it
 * holds one, takes 50 connections, uses 128 MiB, and writes to FILE, ten times a second and holding another, how often it did so and
 * what time it sees. */
#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct mutex { pthread_mutex_t native; void *psi; };
struct mutex LOCK_global_system_variables, LOCK_plugin, LOCK_open, LOCK_status;
struct { struct mutex lock; char rest[96]; } table_cache_manager[64];
static int connections;

static void *serve(void *argument) {
    int client = (int)(long)argument;
    char rest[256];
    pthread_mutex_lock(&LOCK_global_system_variables.native);
    int full = ++connections > 50;
    pthread_mutex_unlock(&LOCK_global_system_variables.native);
    const char *packet = full ? "\x17\0\0\0\xff\x10\x04Too many connections" : "\x4a\0\0\0\x0a" "9.7.4\0selftest";
    if (write(client, packet, 20) == 20 && !full)
        while (read(client, rest, sizeof rest) > 0) {}
    pthread_mutex_lock(&LOCK_global_system_variables.native);
    connections--;
    pthread_mutex_unlock(&LOCK_global_system_variables.native);
    close(client);
    return NULL;
}

static void *listen_for(void *argument) {
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(atoi(argument)) };
    int yes = 1, server = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(server, (struct sockaddr *)&address, sizeof address) || listen(server, 128))
        exit(1);
    for (;;) {
        pthread_t thread;
        long client = accept(server, NULL, NULL);
        if (client >= 0 && !pthread_create(&thread, NULL, serve, (void *)client))
            pthread_detach(thread);
    }
}

int main(int count, char **arguments) {
    pthread_t thread;
    signal(SIGPIPE, SIG_IGN);
    if (count != 3 || pthread_create(&thread, NULL, listen_for, arguments[1]))
        return 1;
    size_t size = 128 << 20;
    char *memory = malloc(size);
    if (!memory)
        return 1;
    memset(memory, 1, size);
    for (long ticks = 1;; ticks++) {
        struct timeval day;
        struct timespec clock;
        pthread_mutex_lock(&table_cache_manager[0].lock.native);
        gettimeofday(&day, NULL);
        clock_gettime(CLOCK_REALTIME, &clock);
        FILE *file = fopen(arguments[2], "w");
        if (file) {
            fprintf(file, "%ld %ld %ld %ld %d\n", ticks, (long)time(NULL), (long)day.tv_sec, (long)clock.tv_sec, memory[ticks]);
            fclose(file);
        }
        pthread_mutex_unlock(&table_cache_manager[0].lock.native);
        usleep(100000);
    }
}
