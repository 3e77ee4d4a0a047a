"""Ways out of a sandbox that somebody has used before, as Python code that runs in the sandbox.

Each calls `gained(what)` when it has got something that is not its own. An error ends the attempt, as the kernel meant
it to; several ways are all tried with `each`. `world` names what is outside the sandbox.
"""

PRELUDE = """
import ctypes, errno, fcntl, glob, json, os, signal, socket, struct, subprocess, sys, time
world = json.loads(os.environ["WORLD"])
libc = ctypes.CDLL(None, use_errno=True)
NULL, ALL = None, ctypes.c_ulong(2**64 - 1)

def gained(what):
    print("GAINED", what, flush=True)

def call(function, *arguments):
    ctypes.set_errno(0)
    answer = getattr(libc, function)(*arguments)
    if answer == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), function)
    return answer

def each(attempt, ways):
    for way in ways:
        try:
            attempt(way)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            print("refused", way, error)

def show(path):
    gained(open(path, "rb").read(4096))

def write(path):
    # Nothing is written: if this ever works, the file is the machine's own.
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
    gained(path)

def connect(family, address):
    with socket.socket(family) as s:
        s.settimeout(1)
        s.connect(address)
        gained(address)
"""

EPILOGUE = """
except (OSError, ValueError, subprocess.SubprocessError) as error:
    print("refused", error)
print("TRIED")
"""

ATTEMPTS = {
    # Files on the disk.
    "another workspace": "each(show, [world['other'] + '/secret', '/workspace/../' + world['other'] + '/secret'])",
    "the data directory": """
for top, names, files in os.walk(world["home"]):
    gained((top, names, files))""",
    "the token of the cell": "show(world['home'] + '/cell-token')",
    "its own event log": "write(world['home'] + '/execution/runs/' + os.environ['BOATYARD_EXECUTION_ID'] + '/events')",
    "a symbolic link through the workspace": """
os.symlink(world["other"], "/workspace/link")
os.symlink("/etc/shadow", "/workspace/shadow")
each(show, ["/workspace/link/secret", "/workspace/shadow", "/proc/self/cwd/link/secret"])""",
    "a hard link through the workspace": """
each(lambda path: gained(os.link(path, "/workspace/hard")),
     [world["other"] + "/secret", "/usr/bin/env", "/etc/passwd"])""",
    "the system": """
each(write, ["/usr/bin/made", "/etc/ld.so.preload", "/etc/passwd", "/lib/made", "/made", "/dev/made", "/proc/made",
             sys.base_prefix + "/made", "/bin/sh"])""",
    "what passwords are": "each(show, ['/etc/shadow', '/etc/gshadow', '/root/.ssh/id_rsa', '/etc/ssl/private'])",
    "a file by its handle": """
handle = struct.pack("=IiQQ", 8, 1, 2, 0)
gained(call("open_by_handle_at", os.open("/workspace", os.O_RDONLY), handle, os.O_RDONLY))""",
    "shared memory of the host": "each(show, ['/dev/shm/' + world['shared_memory']])",
    # Other processes.
    "an environment in /proc": """
def look(path):
    if world["token"][::-1].encode() in open(path, "rb").read():
        gained(path)
each(look, glob.glob("/proc/*/environ") + glob.glob("/proc/*/cmdline") + glob.glob("/proc/*/task/*/environ"))""",
    "the root and directory of another process": """
each(lambda link: gained(os.listdir(link + world["other"])),
     glob.glob("/proc/[0-9]*/root") + glob.glob("/proc/[0-9]*/cwd/.."))""",
    "another process's memory": """
PTRACE_ATTACH = 16
each(lambda pid: gained(call("ptrace", PTRACE_ATTACH, pid, NULL, NULL)), [world["pid"], os.getppid() + 10**6])
each(lambda pid: gained(os.open(f"/proc/{pid}/mem", os.O_RDWR)), [world["pid"]])""",
    "the sandbox's init": """
each(lambda request: gained(call("ptrace", request, 1, NULL, NULL)), [0x4206, 16])
class Piece(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
here = Piece(ctypes.addressof(ctypes.create_string_buffer(8)), 8)
each(lambda name: gained(call(name, 1, ctypes.byref(here), 1, ctypes.byref(here), 1, 0)),
     ["process_vm_readv", "process_vm_writev"])
init = os.pidfd_open(1)
each(lambda fd: gained(call("syscall", 438, init, fd, 0)), range(3, 16))
each(lambda name: gained(os.open(f"/proc/1/{name}", os.O_RDWR)),
     ["mem", "environ", "maps"] + [f"fd/{n}" for n in range(64)])""",
    "a signal to the host": """
each(lambda pid: gained(os.kill(pid, signal.SIGKILL)), [world["pid"], -world["pid"]])""",
    "namespaces of others": """
CLONE_NEWNS = 0x20000
each(lambda path: gained(call("setns", os.open(path, os.O_RDONLY), 0)), glob.glob("/proc/1/ns/*"))""",
    "open descriptors": """
for fd in os.listdir("/proc/self/fd"):
    target = os.readlink(f"/proc/self/fd/{fd}")
    if int(fd) > 2 and target != "/proc/" + str(os.getpid()) + "/fd":
        gained((fd, target))""",
    "more priority": """
each(lambda nice: gained(os.setpriority(os.PRIO_PROCESS, 0, nice)), [-20])
each(lambda policy: gained(os.sched_setscheduler(0, policy, os.sched_param(50))), [os.SCHED_FIFO, os.SCHED_RR])
with open("/proc/self/oom_score_adj", "w") as file:
    file.write("-1000")
gained("the out-of-memory killer's mercy")""",
    "shared memory by its key": "gained(call('shmget', world['key'], 0, 0))",
    # The network.
    "the machine's ports": """
each(lambda host: connect(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, world["port"])),
     ["127.0.0.1", "0.0.0.0", "::1", "localhost", "::ffff:127.0.0.1", *world["addresses"]])""",
    "the machine's metadata": """
each(lambda address: connect(socket.AF_INET, address), [("169.254.169.254", 80), ("100.100.100.200", 80)])""",
    "any address": """
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.sendto(b"x", ("192.0.2.1", 53))
    gained("udp")""",
    "a socket with a path": "each(lambda path: connect(socket.AF_UNIX, path), world['sockets'])",
    "a socket without a path": "connect(socket.AF_UNIX, '\\0' + world['abstract'])",
    "the machine under the machine": """
AF_VSOCK = 40
each(lambda cid: connect(AF_VSOCK, (cid, 1024)), [0, 1, 2])""",
    "raw and rare sockets": """
each(lambda given: gained(socket.socket(*given)),
     [(socket.AF_INET, socket.SOCK_RAW, 1), (17, socket.SOCK_RAW, 0x0300),
      (38, socket.SOCK_SEQPACKET, 0), (15, 3, 2)])""",
    "a network interface": """
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    SIOCSIFADDR = 0x8916
    fcntl.ioctl(s, SIOCSIFADDR, struct.pack("16sH14s", b"lo", socket.AF_INET, b"\\0\\0\\x0a\\0\\0\\1"))
    gained("lo")""",
    # The kernel.
    "mounts": """
def mount(given):
    gained(call("mount", *given))
each(mount, [(b"none", b"/tmp", b"tmpfs", 0, NULL), (b"/", b"/tmp", NULL, 4096, NULL),
             (b"proc", b"/tmp", b"proc", 0, NULL),
             (NULL, b"/", NULL, 32 | 4096, NULL), (NULL, b"/usr", NULL, 32 | 4096, NULL)])
each(lambda path: gained(call("umount2", path, 2)), [b"/proc", b"/dev", b"/tmp", b"/workspace"])""",
    "mounts in the new way": """
each(lambda number: gained(call("syscall", number, -100, b"/", 1)), [428, 430, 431, 432, 433, 442])""",
    "a user namespace": """
NEWUSER = 0x10000000
each(lambda flags: gained(call("unshare", flags)), [NEWUSER, NEWUSER | 0x20000, 0x20000, 0x40000000, 0x20000000])
each(lambda line: gained(subprocess.run(line, check=True)), [["unshare", "-Ur", "id"]])""",
    "another root": """
each(lambda path: gained(os.chroot(path)), ["/", "/workspace"])
each(lambda path: gained(call("pivot_root", path, path)), [b"/workspace"])""",
    "rights": """
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
    if int(status[name], 16):
        gained((name, status[name]))
if status["NoNewPrivs"].strip() != "1":
    gained("new privileges")
each(lambda uid: gained(os.setuid(uid)), [0, 1, 65534])""",
    "a program that is root": """
os.system("cp /bin/sleep /workspace/root && chmod 6755 /workspace/root")
each(lambda path: gained(os.chown(path, 0, 0)), ["/workspace/root"])
with subprocess.Popen(["/workspace/root", "60"]) as process:
    uids = [line.split()[1:] for line in open(f"/proc/{process.pid}/status") if line.startswith("Uid")][0]
    if set(uids) != {"1000"}:
        gained(uids)
    process.kill()
for path in ("/usr", "/workspace", "/tmp"):
    if not os.statvfs(path).f_flag & os.ST_NOSUID:
        gained(path)""",
    "the keys of a user": """
keyctl, KEYCTL_GET_KEYRING_ID = 250 if os.uname().machine == "x86_64" else 219, 0
each(lambda ring: gained(call("syscall", keyctl, KEYCTL_GET_KEYRING_ID, ring, 0)),
     [-3, -4, -5])""",
    "devices": """
each(lambda path: gained(os.open(path, os.O_RDWR)),
     ["/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/fuse", "/dev/net/tun", "/dev/vda", "/dev/sda", "/dev/loop-control",
      "/dev/vsock", "/dev/ptp0", "/dev/console", "/dev/tty0", "/dev/tty"])
for kind, device in ((0o020666, os.makedev(1, 1)), (0o060666, os.makedev(8, 0)), (0o060666, os.makedev(254, 0))):
    each(lambda path: gained(os.mknod(path, kind, device)), ["/workspace/node", "/tmp/node", "/dev/node"])""",
    "the modes of the host's devices": """
def take(path):
    os.chmod(path, 0o666)  # the mode that it has: if this ever works, no harm is done
    gained(path)
each(take, ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"])
if os.fstat(0).st_uid == os.getuid():
    gained("standard input")
open("/dev/null", "w").write("as ever")""",
    "settings of the kernel": """
each(write, ["/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/drop_caches",
             "/proc/sysrq-trigger", "/proc/sys/kernel/hostname", "/proc/sys/net/ipv4/ip_forward",
             "/proc/sys/fs/binfmt_misc/register", "/proc/irq/default_smp_affinity", "/proc/mtrr",
             "/sys/kernel/uevent_helper", "/sys/kernel/debug/made", "/proc/kcore", "/proc/acpi/wakeup"])
for name in os.listdir("/proc"):
    if not name.isdigit() and not os.path.islink("/proc/" + name):
        for path in glob.glob("/proc/" + name + "/**", recursive=True) + ["/proc/" + name]:
            if os.access(path, os.W_OK) and os.stat(path).st_rdev == 0:
                gained(path)
for path in ("kcore", "kmsg", "keys", "timer_list"):
    if os.path.exists("/proc/" + path) and open("/proc/" + path, "rb").read(64):
        gained(path)""",
    "a map of users": """
each(lambda name: gained(os.write(os.open("/proc/self/" + name, os.O_WRONLY), b"0 0 1")), ["uid_map", "gid_map"])""",
    "control groups": """
for found in os.walk("/sys/fs/cgroup"):
    gained(found)
each(write, ["/sys/fs/cgroup/release_agent", "/sys/fs/cgroup/cgroup.procs"])""",
    "modules of the kernel": """
each(lambda number: gained(call("syscall", number, b"x", 1, b"")),
     [175, 313] if os.uname().machine == "x86_64" else [105, 273])""",
    "the machine's clock, swap and name": """
each(lambda clock: gained(time.clock_settime(clock, 0)), [time.CLOCK_REALTIME])
each(lambda name: gained(call("swapon", name, 0)), [b"/workspace/swap"])
each(lambda name: gained(call("sethostname", name, 1)), [b"x"])
each(lambda kind: gained(call("klogctl", kind, ctypes.create_string_buffer(64), 64)), [3])
each(lambda how: gained(call("reboot", how)), [0x01234567])""",
    "words in another's terminal": """
each(lambda fd: gained(fcntl.ioctl(fd, 0x5412, b"x")), [0, 1, 2])
master, slave = os.openpty()
each(lambda fd: gained(fcntl.ioctl(fd, 0x5412, b"x")), [slave])""",
    "what the whole machine has of asynchronous requests": """
io_setup, context = 206 if os.uname().machine == "x86_64" else 0, ctypes.c_ulong(0)
each(lambda number: gained(call("syscall", io_setup, number, ctypes.byref(context))), [1 << 16, 128, 1])""",
    "what is not checked elsewhere": """
numbers = {"x86_64": [321, 298, 323, 425, 246, 304, 179], "aarch64": [280, 241, 282, 425, 104, 265, 60]}
each(lambda number: gained(call("syscall", number, 0, 0, 0, 0, 0, 0)), numbers.get(os.uname().machine, []))""",
}

NASTY = {
    # These gain nothing: they leave something in a workspace, or do something to the program itself.
    "sockets and pipes left behind": """
with socket.socket(socket.AF_UNIX) as s:
    s.bind("/workspace/socket")
os.mkfifo("/workspace/fifo")
os.mkfifo("/workspace/.git")
os.symlink("/workspace/loop", "/workspace/loop")""",
    "directories without end": """
for _ in range(3000):
    os.mkdir("d")
    os.chdir("d")""",
    "names of any bytes": """
for name in (b"\\xff\\xfe", b"-rf", b"a\\nb", b" ", b"x" * 255):
    open(b"/workspace/" + name, "w").close()""",
    "files without content": """
for number in range(20000):
    open(f'/tmp/{number}', 'w').close()""",
    "everybody killed": "os.kill(-1, signal.SIGKILL)",
    "its own init stopped": "os.kill(1, signal.SIGSTOP); os.kill(1, signal.SIGKILL)",
}

BOMBS = {
    # Each with the limits that contain it, as fields of AgentSettings.
    "processes": ("while True: os.fork()", {"processes": 64}),
    "threads": (
        """
import threading
try:
    while True: threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
except RuntimeError:
    os._exit(1)""",
        {"processes": 64},
    ),
    "memory": ("held = [bytearray(8 << 20) for _ in range(1000)]", {"memory_bytes": 192 << 20}),
    "/tmp": ("open('/tmp/big', 'wb').write(bytes(64 << 20))", {}),
    "HOME": ("open('/home/agent/big', 'wb').write(bytes(64 << 20))", {}),
    "/dev/shm": ("open('/dev/shm/big', 'wb').write(bytes(64 << 20))", {}),
    "a large file": ("open('/workspace/big', 'wb').write(bytes(64 << 20))", {"file_size_bytes": 1 << 20}),
    "the workspace": (
        """
while True:
    open(f'/workspace/{os.urandom(8).hex()}', 'wb').write(bytes(1 << 20))
    time.sleep(0.02)""",
        {"disk_bytes": 8 << 20},
    ),
    "descriptors": ("held = [os.open('/dev/null', os.O_RDONLY) for _ in range(10000)]", {"open_files": 64}),
    "output": ("while True: os.write(1, bytes(65536))", {"output_bytes": 4 << 20}),
    "time": ("while True: pass", {"cpu_seconds": 1}),
}
