//! Process calls: clone into namespaces, capabilities, signals, seccomp, terminals.
//!
//! `clone_child` must only be called by a process with a single thread: the child goes on with a copy of
//! the whole process, allocator locks included.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Forks, with the child in new namespaces (`CLONE_NEW*`). Returns 0 in the child.
pub fn clone_child(flags: libc::c_int) -> io::Result<libc::pid_t> {
    let flags = flags | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and with a null stack this is fork with namespaces: the child has its own copy
    // of all memory. The caller has one thread (see above), so no lock is held by a thread that is gone.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    libc::pid_t::try_from(pid).map_err(io::Error::other)
}

/// Threads of this process.
pub fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Ends the process at once, without running anything that the parent registered.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: never returns and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Marks every descriptor from `first` on to be closed by the next exec.
pub fn close_on_exec_from(first: libc::c_uint) -> io::Result<()> {
    // SAFETY: no memory arguments; descriptors stay open, so nothing that owns one is wronged.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes every descriptor from `first` on. For a forked child that will own none of them.
pub fn close_from(first: libc::c_uint) {
    // SAFETY: the caller is a forked child that uses no descriptor above `first` any more.
    unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0);
    }
}

/// All signals back to their default action and none blocked, as a new program expects it.
pub fn default_signals() {
    for signal in 1..=64 {
        if signal != libc::SIGKILL && signal != libc::SIGSTOP {
            // SAFETY: SIG_DFL is a valid action for any signal; the two that libc keeps for itself only fail.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    // SAFETY: an all-zero set is initialised by sigemptyset before it is read.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Children that end leave no zombie.
pub fn reap_automatically() {
    // SAFETY: SIG_IGN is a valid action.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Sets this thread's capabilities, each a set of bits.
pub fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = CapHeader { version: VERSION_3, pid: 0 };
    let part = |shift: u32| CapData {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let data = [part(0), part(32)];
    // SAFETY: version 3 takes one header and two data blocks, which both live through the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// This thread's permitted capabilities.
pub fn permitted_capabilities() -> io::Result<u64> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = CapHeader { version: VERSION_3, pid: 0 };
    let mut data = [CapData { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: as above, with writable data.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::from(data[0].permitted) | u64::from(data[1].permitted) << 32)
}

/// Removes a capability from the bounding set; one that the kernel does not know is no error.
pub fn drop_bounding(capability: u32) -> io::Result<()> {
    prctl(libc::PR_CAPBSET_DROP, capability)
}

/// Adds a capability to the ambient set.
pub fn raise_ambient(capability: u32) -> io::Result<()> {
    // SAFETY: no memory arguments.
    let result = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn prctl(option: libc::c_int, argument: u32) -> io::Result<()> {
    // SAFETY: no memory arguments.
    if unsafe { libc::prctl(option, libc::c_ulong::from(argument), 0, 0, 0) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        error => Err(error),
    }
}

/// Installs a seccomp filter for this thread and all it becomes.
pub fn load_seccomp(program: &[libc::sock_filter]) -> io::Result<()> {
    let length = libc::c_ushort::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel only reads the program, which lives through the call.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Unlocks a terminal's master side and opens its other side, without going through a path.
pub fn terminal_slave(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let unlocked: libc::c_int = 0;
    // SAFETY: the lock's value is read from a live integer.
    if unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: no memory arguments; the kernel returns a new descriptor.
    let slave = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    // SAFETY: the descriptor is ours alone.
    if slave < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { OwnedFd::from_raw_fd(slave) }) }
}

/// Makes a terminal the controlling one of this session.
pub fn take_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no memory arguments.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

pub fn resize_terminal(terminal: BorrowedFd<'_>, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the size is read from a live structure.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Says how soon the calling process, and what it starts, is killed for want of memory: -1000 is never, 1000
/// first. Lowering it needs a capability that even root may lack; everything goes on without.
pub fn set_oom_score(score: i32) {
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
        tracing::debug!(score, %error, "oom_score_adj stays as it is");
    }
}

/// Makes descriptors 0, 1 and 2 copies of the given ones.
pub fn set_stdio(stdio: [BorrowedFd<'_>; 3]) -> io::Result<()> {
    for (number, fd) in (0..).zip(stdio) {
        // SAFETY: the source is open; whatever was at 0 to 2 is replaced, which is what they are for.
        if unsafe { libc::dup2(fd.as_raw_fd(), number) } < 0 {
            return Err(io::Error::last_os_error());
        }
        if fd.as_raw_fd() == number {
            // dup2 onto itself keeps close-on-exec.
            // SAFETY: no memory arguments.
            unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
        }
    }
    Ok(())
}

/// Registers a non-blocking descriptor with the async runtime.
pub fn watch(fd: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by what is returned, which never lets it go before it is
    // unregistered, and an OwnedFd always gives the same descriptor.
    Ok(unsafe { tokio::io::unix::AsyncFd::register(fd) }?)
}

/// A descriptor for a process, which never means another process that got the same number later.
pub fn pidfd(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: no memory arguments; the kernel returns a new descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the descriptor is ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
