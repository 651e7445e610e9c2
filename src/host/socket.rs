//! TCP sockets, as the kernel shows them in `/proc/net`, and connections that are only tried.
//!
//! Whose a socket is, `/proc/<pid>/fd` would tell: to a process of the same user without more capabilities, or with `CAP_SYS_PTRACE`.
//! The agent has no capability, so it goes by what everybody may read: the socket's user (`/proc/net/tcp`), the users of processes
//! (`status`), and which of them see the socket in their network (`/proc/<pid>/net/tcp`). See docs/security.md.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpStream;

use super::{Error, Holder, Listener, Reach, process};

/// How long an endpoint may take to accept a connection: a receiver on the same network needs milliseconds.
const CONNECTS_WITHIN: Duration = Duration::from_secs(2);

/// State `TCP_LISTEN` of `include/net/tcp_states.h`.
const LISTEN: &str = "0A";

/// A line of `/proc/net/tcp` or `tcp6` (`proc_pid_net(5)`) that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Socket {
    address: IpAddr,
    port: u16,
    uid: u32,
    inode: u64,
}

/// Who keeps 127.0.0.1 from being listened on at `port`, in the network that this process is in; nothing when the port is free.
pub(super) fn listener(proc: &Path, port: u16) -> Result<Option<Listener>, Error> {
    let found = sockets(&proc.join("net"))?.into_iter().find(|s| s.port == port && covers_loopback(s.address));
    let Some(socket) = found else { return Ok(None) };
    Ok(Some(Listener { uid: socket.uid, holder: holder(proc, &socket)? }))
}

/// Whether a socket on this address and one on 127.0.0.1 exclude each other. One on `::` takes IPv4 too, unless it was made not to.
fn covers_loopback(address: IpAddr) -> bool {
    let v4 = match address {
        IpAddr::V6(address) if address.is_unspecified() => return true,
        IpAddr::V6(address) => address.to_ipv4_mapped(),
        IpAddr::V4(address) => Some(address),
    };
    v4.is_some_and(|address| address.is_unspecified() || address == Ipv4Addr::LOCALHOST)
}

/// The oldest process that may hold the socket, where all that may are of one program.
fn holder(proc: &Path, socket: &Socket) -> Result<Option<Holder>, Error> {
    let sees = |folder: &Path| sockets(&folder.join("net")).is_ok_and(|all| all.iter().any(|s| s.inode == socket.inode));
    let processes = process::of_user(proc, socket.uid, sees)?;
    let Some(first) = processes.first() else { return Ok(None) };
    let one = processes.iter().all(|p| p.program == first.program);
    Ok(one.then(|| first.clone()))
}

fn sockets(net: &Path) -> Result<Vec<Socket>, Error> {
    let mut found = Vec::new();
    for name in ["tcp", "tcp6"] {
        let path = net.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => found.extend(text.lines().skip(1).filter_map(socket)),
            // a kernel without IPv6
            Err(error) if name == "tcp6" && error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Kernel { path: path.display().to_string(), source }),
        }
    }
    Ok(found)
}

/// `sl local_address rem_address st tx_queue:rx_queue tr:when retrnsmt uid timeout inode …`, if it listens.
fn socket(line: &str) -> Option<Socket> {
    let fields: Vec<_> = line.split_ascii_whitespace().collect();
    let [_, local, _, LISTEN, _, _, _, uid, _, inode, ..] = fields[..] else { return None };
    let (address, port) = local.split_once(':')?;
    Some(Socket {
        address: ip_address(address)?,
        port: u16::from_str_radix(port, 16).ok()?,
        uid: uid.parse().ok()?,
        inode: inode.parse().ok()?,
    })
}

/// Words of 32 bits, each in the order of the machine, which is little-endian wherever Kubernetes has a release but on s390x.
fn ip_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let octets: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

/// Connects to `host:port`, and closes.
pub(super) async fn reach(endpoint: &str) -> Reach {
    match tokio::time::timeout(CONNECTS_WITHIN, TcpStream::connect(endpoint)).await {
        Ok(Ok(_)) => Reach::Connected,
        Ok(Err(error)) => classify(&error),
        Err(_) => Reach::Silent,
    }
}

/// By category: the system's words hold addresses, and differ from one C library to the next.
fn classify(error: &io::Error) -> Reach {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Reach::Refused,
        io::ErrorKind::TimedOut => Reach::Silent,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Reach::NoRoute,
        // what getaddrinfo says carries no number of the kernel's
        _ if error.raw_os_error().is_none() => Reach::NotResolved,
        _ => Reach::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn line(address: &str, port: u16, state: &str, uid: u32, inode: u64) -> String {
        format!(
            "   0: {address}:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 {uid:5}        0 {inode} 1 0 100\n"
        )
    }

    /// A `/proc` with these lines of `net/tcp` and `net/tcp6`.
    fn mk_proc(tcp: &str, tcp6: Option<&str>) -> tempfile::TempDir {
        let proc = tempfile::tempdir().unwrap();
        mk_net(proc.path(), tcp, tcp6);
        proc
    }

    fn mk_net(folder: &Path, tcp: &str, tcp6: Option<&str>) {
        fs::create_dir(folder.join("net")).unwrap();
        fs::write(folder.join("net/tcp"), format!("{HEAD}{tcp}")).unwrap();
        if let Some(tcp6) = tcp6 {
            fs::write(folder.join("net/tcp6"), format!("{HEAD}{tcp6}")).unwrap();
        }
    }

    fn mk_process(proc: &Path, pid: &str, argv: &str, uid: u32, tcp: &str) {
        let folder = proc.join(pid);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("cmdline"), argv).unwrap();
        fs::write(folder.join("status"), format!("Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nGid:\t0\t0\t0\t0\n")).unwrap();
        mk_net(&folder, tcp, None);
    }

    #[test]
    fn a_listener_counts_where_it_keeps_the_loopback_from_being_listened_on() {
        const LOOPBACK_6: &str = "00000000000000000000000001000000";
        const MAPPED_LOOPBACK: &str = "0000000000000000FFFF00000100007F";
        let any_6 = "0".repeat(32);
        let cases = [
            ("0100007F", 4317, LISTEN, true),
            ("00000000", 4317, LISTEN, true),
            ("0100007F", 4318, LISTEN, false),
            // connected, and closing
            ("0100007F", 4317, "01", false),
            ("0100007F", 4317, "06", false),
            // 127.0.0.53 and 10.89.0.10
            ("3500007F", 4317, LISTEN, false),
            ("0A00590A", 4317, LISTEN, false),
            (any_6.as_str(), 4317, LISTEN, true),
            (MAPPED_LOOPBACK, 4317, LISTEN, true),
            (LOOPBACK_6, 4317, LISTEN, false),
        ];
        for (address, port, state, taken) in cases {
            let text = line(address, port, state, 101, 7);
            let proc = if address.len() == 8 { mk_proc(&text, Some("")) } else { mk_proc("", Some(&text)) };
            let expected = taken.then_some(Listener { uid: 101, holder: None });
            assert_eq!(listener(proc.path(), 4317).unwrap(), expected, "{address} {port} {state}");
        }
        assert_eq!(listener(mk_proc("", None).path(), 4317).unwrap(), None, "without IPv6");
        assert!(listener(Path::new("/nowhere"), 4317).is_err(), "what cannot be read is not free");
    }

    #[test]
    fn the_holder_is_named_where_only_one_program_of_the_sockets_user_sees_it() {
        let (ours, other) = (line("0100007F", 4317, LISTEN, 101, 7), line("0100007F", 4317, LISTEN, 101, 8));
        let proc = mk_proc(&ours, None);
        mk_process(proc.path(), "30", "nginx: worker process\0", 101, &ours);
        mk_process(proc.path(), "29", "nginx: master process\0", 0, &ours);
        mk_process(proc.path(), "28", "otherd\0", 101, &other);
        let holder = || listener(proc.path(), 4317).unwrap().unwrap().holder;
        assert_eq!(holder(), Some(Holder { program: "nginx".into(), pid: 30 }), "another user's and another network's do not count");
        mk_process(proc.path(), "27", "/usr/bin/nginx\0-g\0", 101, &ours);
        assert_eq!(holder(), Some(Holder { program: "nginx".into(), pid: 27 }));
        mk_process(proc.path(), "31", "redis\0", 101, &ours);
        assert_eq!(holder(), None, "it is one of two");
    }

    #[test]
    fn a_port_of_this_very_machine_is_taken_while_somebody_listens() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let found = listener(Path::new("/proc"), port).unwrap().unwrap();
        assert_eq!(found.uid, rustix::process::geteuid().as_raw());
        drop(socket);
        assert_eq!(listener(Path::new("/proc"), port).unwrap(), None);
    }

    #[tokio::test]
    async fn an_endpoint_is_reached_or_it_is_said_in_a_word_why_not() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = socket.local_addr().unwrap().to_string();
        assert_eq!(reach(&endpoint).await, Reach::Connected);
        drop(socket);
        assert_eq!(reach(&endpoint).await, Reach::Refused);
        assert_eq!(reach("no-such-host.invalid:4317").await, Reach::NotResolved);
    }

    #[test]
    fn failures_are_told_by_category() {
        let cases = [
            (io::Error::from_raw_os_error(111), Reach::Refused),
            (io::Error::from_raw_os_error(110), Reach::Silent),
            (io::Error::from_raw_os_error(113), Reach::NoRoute),
            (io::Error::from_raw_os_error(101), Reach::NoRoute),
            (io::Error::from_raw_os_error(24), Reach::Failed),
            (io::Error::other("failed to lookup address information"), Reach::NotResolved),
        ];
        for (error, reach) in cases {
            assert_eq!(classify(&error), reach, "{error:?}");
        }
    }
}
