// Hide AVX-512, VNNI and AMX from one program, so that an Intel processor measures as one with AVX2
// alone: x86-64 Linux, where the kernel lets a process trap CPUID ("cpuid_fault" in /proc/cpuinfo).
//
//     cc -O2 -shared -fPIC -o hide_cpu.so benchmarks/setup/hide_cpu.c
//     LD_PRELOAD=$PWD/hide_cpu.so trimexport-run info build/sst2
//
// Libraries choose their kernels by the CPUID instruction. It faults while this is loaded, and the
// handler answers for it with those features masked. ONNX Runtime, OpenVINO and PyTorch then run
// their AVX2 kernels natively, at their own speed. /proc/cpuinfo is opened as a copy without the
// same flags, because trimexport-runtime goes by it. The clock and the caches stay those of the
// processor at hand, so ratios carry over to other processors better than milliseconds.

#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012
#define CPUINFO "/proc/cpuinfo"

static struct sigaction previous;

static long allow_cpuid(int on) { return syscall(SYS_arch_prctl, ARCH_SET_CPUID, on); }

// Clear the bits of eax, ebx, ecx, edx (r[0] to r[3]) that stand for hidden features.
static void mask(uint32_t leaf, uint32_t sub, uint32_t r[4]) {
  if (leaf == 7 && sub == 0) {
    r[1] &= ~(1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31);
    r[2] &= ~(1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14);  // 11 is AVX512-VNNI
    r[3] &= ~(1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25);  // AMX
  } else if (leaf == 7 && sub == 1) {
    r[0] &= ~(1u << 4 | 1u << 5 | 1u << 21 | 1u << 23);  // AVX-VNNI, AVX512-BF16, AMX-FP16, IFMA
    r[3] &= ~(1u << 4 | 1u << 5 | 1u << 8 | 1u << 10 | 1u << 19);  // AVX-VNNI-INT8 and -INT16, AVX10
  } else if (leaf == 0xd && sub == 0) {
    r[0] &= ~(7u << 5 | 3u << 17);  // the states of AVX-512 and AMX
  } else if (leaf == 0x1d || leaf == 0x1e || leaf == 0x24) {
    memset(r, 0, 16);  // tiles, their multiplier, AVX10
  }
}

static void on_fault(int number, siginfo_t *info, void *context) {
  greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
  const uint8_t *next = (const uint8_t *)g[REG_RIP];
  (void)number;
  if (info->si_code != SI_KERNEL || next[0] != 0x0f || next[1] != 0xa2) {
    sigaction(SIGSEGV, &previous, NULL);  // no CPUID: the fault repeats, as it would have been
    return;
  }
  uint32_t leaf = g[REG_RAX], sub = g[REG_RCX], r[4];
  allow_cpuid(1);
  __cpuid_count(leaf, sub, r[0], r[1], r[2], r[3]);
  allow_cpuid(0);
  mask(leaf, sub, r);
  g[REG_RAX] = r[0], g[REG_RBX] = r[1], g[REG_RCX] = r[2], g[REG_RDX] = r[3];
  g[REG_RIP] += 2;
}

// A file in memory: /proc/cpuinfo without the hidden flags: dashes stand in their place.
static int masked_cpuinfo(int source) {
  static const char *const hidden[] = {" avx512", " avx_vnni", " amx_"};
  int copy = memfd_create("cpuinfo", MFD_CLOEXEC);
  FILE *in = fdopen(source, "r");
  char *line = NULL;
  size_t room = 0;
  while (copy >= 0 && getline(&line, &room, in) > 0) {
    for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++)
      for (char *at = line; (at = strstr(at, hidden[i]));)
        for (at++; *at > ' '; at++) *at = '-';
    dprintf(copy, "%s", line);
  }
  fclose(in);
  lseek(copy, 0, SEEK_SET);
  return copy;
}

int open64(const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  int made = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE;
  mode_t mode = made ? va_arg(more, mode_t) : 0;
  va_end(more);
  int file = syscall(SYS_openat, AT_FDCWD, path, flags, mode);
  return file >= 0 && strcmp(path, CPUINFO) == 0 ? masked_cpuinfo(file) : file;
}

int open(const char *path, int flags, ...) __attribute__((alias("open64")));

FILE *fopen64(const char *path, const char *how) {
  FILE *(*real)(const char *, const char *) = dlsym(RTLD_NEXT, "fopen64");
  return strcmp(path, CPUINFO) == 0 ? fdopen(open64(path, O_RDONLY), "r") : real(path, how);
}

FILE *fopen(const char *path, const char *how) __attribute__((alias("fopen64")));

__attribute__((constructor)) static void start(void) {
  struct sigaction action = {0};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGSEGV, &action, &previous);
  if (allow_cpuid(0) != 0) {
    fprintf(stderr, "hide_cpu: this machine lets no process trap CPUID\n");
    _exit(97);
  }
}
