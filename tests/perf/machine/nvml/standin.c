/* A stand-in for libnvidia-ml.so.1: answers what a scenario file says (HOTLAP_STANDIN_NVML), read anew at each call so that a test can change it midway.
 *
 * A line is `key value`. Keys: `name`, or `GPU.name` (0.used_bytes), or `GPU/SLICE.name` (1/0.uuid); the most exact one counts.
 * `FUNCTION.error 15` makes a function fail, `every.error` each that asks a device. `compute` and `graphics` are lists of pid:bytes, where pid may be `self` and bytes `none`.
 * `lost_after N`: after a process asked a device N times, it is lost. Structures and versions of functions are those of nvml.h as nvidia-ml-py 13 asks for them. OLD_DRIVER leaves out what drivers before R535 and R570 lack. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, GPU_IS_LOST = 15 };
enum { GPUS = 4, SLICES = 4, TEXT = 4096 };

typedef struct { int gpu, slice; } device_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } utilization_t;
typedef struct { unsigned int version; int sensor, temperature; } temperature_t;
typedef struct { unsigned int pid; unsigned long long bytes; unsigned int gpu_instance, compute_instance; } process_t;

static device_t gpus[GPUS], slices[GPUS][SLICES];
static int users;
static unsigned long long energy_reads[GPUS], asked;

static int lookup(const char *key, char *value) {
    const char *path = getenv("HOTLAP_STANDIN_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) { fprintf(stderr, "stand-in NVML: no scenario in HOTLAP_STANDIN_NVML\n"); abort(); }
    char line[TEXT];
    int found = 0;
    size_t length = strlen(key);
    while (!found && fgets(line, sizeof line, file))
        if (!strncmp(line, key, length) && line[length] == ' ') {
            line[strcspn(line, "\n")] = 0;
            strcpy(value, line + length + 1);
            found = 1;
        }
    fclose(file);
    return found;
}

static int text(const device_t *device, const char *name, char *value) {
    char key[256];
    if (device && device->slice >= 0) {
        snprintf(key, sizeof key, "%d/%d.%s", device->gpu, device->slice, name);
        if (lookup(key, value)) return 1;
    }
    if (device) {
        snprintf(key, sizeof key, "%d.%s", device->gpu, name);
        if (lookup(key, value)) return 1;
    }
    return lookup(name, value);
}

static unsigned long long number(const device_t *device, const char *name) {
    char value[TEXT];
    return text(device, name, value) ? strtoull(value, NULL, 0) : 0;
}

static int failure(const device_t *device, const char *function) {
    char name[128];
    if (!users) return UNINITIALIZED;
    snprintf(name, sizeof name, "%s.error", function);
    unsigned long long last = number(NULL, "lost_after");
    if (last && device && ++asked > last) return GPU_IS_LOST;
    int error = (int)number(device, name);
    return error || !device ? error : (int)number(device, "every.error");
}

#define ANSWER(device) do { int error = failure(device, __func__); if (error) return error; } while (0)
#define WHOLE_GPU_ONLY(device) do { if ((device)->slice >= 0) return NOT_SUPPORTED; } while (0)

int nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    users++;
    int error = failure(NULL, __func__);
    if (error) { users--; return error; }
    for (int gpu = 0; gpu < GPUS; gpu++) {
        gpus[gpu] = (device_t){gpu, -1};
        for (int slice = 0; slice < SLICES; slice++) slices[gpu][slice] = (device_t){gpu, slice};
    }
    return SUCCESS;
}

int nvmlShutdown(void) { if (!users) return UNINITIALIZED; users--; return SUCCESS; }
const char *nvmlErrorString(int error) { (void)error; return "an error of the stand-in"; }

static int put(const device_t *device, const char *name, char *buffer, unsigned int size) {
    char value[TEXT];
    if (!text(device, name, value)) { fprintf(stderr, "stand-in NVML: the scenario has no %s\n", name); abort(); }
    if (strlen(value) >= size) return INSUFFICIENT_SIZE;
    strcpy(buffer, value);
    return SUCCESS;
}

int nvmlSystemGetDriverVersion(char *version, unsigned int size) { ANSWER(NULL); return put(NULL, "driver", version, size); }
int nvmlDeviceGetCount_v2(unsigned int *count) { ANSWER(NULL); *count = (unsigned int)number(NULL, "gpus"); return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, device_t **device) {
    if (index >= number(NULL, "gpus")) return INVALID_ARGUMENT;
    ANSWER(&gpus[index]);
    *device = &gpus[index];
    return SUCCESS;
}
int nvmlDeviceGetName(device_t *device, char *name, unsigned int size) { ANSWER(device); return put(device, "name", name, size); }
int nvmlDeviceGetUUID(device_t *device, char *uuid, unsigned int size) { ANSWER(device); return put(device, "uuid", uuid, size); }

int nvmlDeviceGetMemoryInfo(device_t *device, memory_t *memory) {
    ANSWER(device);
    memory->total = number(device, "total_bytes");
    memory->used = number(device, "used_bytes");
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

static int processes(device_t *device, const char *name, unsigned int *count, process_t *found) {
    char value[TEXT] = "";
    process_t all[64];
    unsigned int known = 0;
    text(device, name, value);
    for (char *item = strtok(value, ","); item && known < 64; item = strtok(NULL, ",")) {
        char *bytes = strchr(item, ':') + 1;
        all[known].pid = strncmp(item, "self", 4) ? (unsigned int)strtoul(item, NULL, 0) : (unsigned int)getpid();
        all[known].bytes = strcmp(bytes, "none") ? strtoull(bytes, NULL, 0) : ~0ULL;
        all[known].gpu_instance = all[known].compute_instance = ~0U;
        known++;
    }
    unsigned int room = *count;
    *count = known;
    if (room < known) return INSUFFICIENT_SIZE;
    if (known) memcpy(found, all, known * sizeof *all);
    return SUCCESS;
}
int nvmlDeviceGetComputeRunningProcesses_v3(device_t *device, unsigned int *count, process_t *found) { ANSWER(device); return processes(device, "compute", count, found); }
int nvmlDeviceGetGraphicsRunningProcesses_v3(device_t *device, unsigned int *count, process_t *found) { ANSWER(device); return processes(device, "graphics", count, found); }

int nvmlDeviceGetClockInfo(device_t *device, int kind, unsigned int *mhz) {
    ANSWER(device);
    WHOLE_GPU_ONLY(device);
    if (kind != 1 && kind != 2) return INVALID_ARGUMENT;
    *mhz = (unsigned int)number(device, kind == 1 ? "sm_mhz" : "memory_mhz");
    return SUCCESS;
}

#ifndef OLD_DRIVER
int nvmlDeviceGetCurrentClocksEventReasons(device_t *device, unsigned long long *reasons) {
    ANSWER(device);
    WHOLE_GPU_ONLY(device);
    *reasons = number(device, "throttle");
    return SUCCESS;
}
int nvmlDeviceGetTemperatureV(device_t *device, temperature_t *temperature) {
    ANSWER(device);
    WHOLE_GPU_ONLY(device);
    if (temperature->version != (1U << 24 | sizeof *temperature)) return 25;
    temperature->temperature = (int)number(device, "celsius");
    return SUCCESS;
}
#endif
int nvmlDeviceGetCurrentClocksThrottleReasons(device_t *device, unsigned long long *reasons) {
    ANSWER(device);
    WHOLE_GPU_ONLY(device);
    *reasons = number(device, "throttle");
    return SUCCESS;
}
int nvmlDeviceGetTemperature(device_t *device, int sensor, unsigned int *celsius) {
    ANSWER(device);
    WHOLE_GPU_ONLY(device);
    if (sensor) return INVALID_ARGUMENT;
    *celsius = (unsigned int)number(device, "celsius");
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(device_t *device, unsigned int *mw) { ANSWER(device); WHOLE_GPU_ONLY(device); *mw = (unsigned int)number(device, "power_mw"); return SUCCESS; }

/* The counter grows by energy_step_mj at every energy_every-th read. */
int nvmlDeviceGetTotalEnergyConsumption(device_t *device, unsigned long long *mj) {
    ANSWER(device);
    WHOLE_GPU_ONLY(device);
    unsigned long long every = number(device, "energy_every");
    *mj = number(device, "energy_mj") + number(device, "energy_step_mj") * (every ? energy_reads[device->gpu]++ / every : 0);
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(device_t *device, utilization_t *rates) {
    ANSWER(device);
    WHOLE_GPU_ONLY(device);
    *rates = (utilization_t){(unsigned int)number(device, "gpu_percent"), (unsigned int)number(device, "memory_percent")};
    return SUCCESS;
}

int nvmlDeviceGetTotalEccErrors(device_t *device, int kind, int counter, unsigned long long *count) {
    ANSWER(device);
    WHOLE_GPU_ONLY(device);
    if (counter || kind < 0 || kind > 1) return INVALID_ARGUMENT;
    *count = number(device, kind ? "ecc_uncorrected" : "ecc_corrected");
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(device_t *device, int *major, int *minor) {
    ANSWER(device);
    int capability = (int)number(device, "capability");
    *major = capability ? capability / 10 : 9;
    *minor = capability % 10;
    return SUCCESS;
}
int nvmlDeviceGetMigMode(device_t *device, unsigned int *current, unsigned int *pending) {
    ANSWER(device);
    WHOLE_GPU_ONLY(device);
    *current = (unsigned int)number(device, "mig");
    *pending = (unsigned int)number(device, "mig_pending");
    return SUCCESS;
}
int nvmlDeviceGetMaxMigDeviceCount(device_t *device, unsigned int *count) { ANSWER(device); (void)device; *count = SLICES; return SUCCESS; }
int nvmlDeviceGetMigDeviceHandleByIndex(device_t *device, unsigned int index, device_t **slice) {
    ANSWER(device);
    if (index >= SLICES) return INVALID_ARGUMENT;
    char key[32];
    snprintf(key, sizeof key, "slice%u", index);
    if (!number(device, key)) return NOT_FOUND;
    *slice = &slices[device->gpu][index];
    return SUCCESS;
}
int nvmlDeviceGetGpuInstanceId(device_t *device, unsigned int *id) { ANSWER(device); if (device->slice < 0) return NOT_FOUND; *id = (unsigned int)number(device, "gpu_instance"); return SUCCESS; }
int nvmlDeviceGetComputeInstanceId(device_t *device, unsigned int *id) { ANSWER(device); if (device->slice < 0) return NOT_FOUND; *id = 0; return SUCCESS; }
