//! Processes by identity: a pid together with its start time, so that a pid that the system has given to somebody else
//! is never signalled; and the record of what a local cloud runs, from which the guardian ends it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

/// One process, for good: another process with the same pid is another value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid.
    pub pid: u32,
    /// When it started, in whatever unit the system tells it; only ever compared.
    pub started: String,
}

impl ProcessId {
    /// The process that has this pid now.
    pub fn of(pid: u32) -> Option<Self> {
        row(pid).map(|row| ProcessId {
            pid,
            started: row.started,
        })
    }

    /// This process.
    pub fn own() -> Self {
        let pid = std::process::id();
        Self::of(pid).unwrap_or(ProcessId {
            pid,
            started: String::new(),
        })
    }

    /// Whether it still runs. A process that ended and was not collected yet does not.
    pub fn is_alive(&self) -> bool {
        row(self.pid).is_some_and(|row| row.started == self.started && !row.ended)
    }

    /// Sends the signal if the process still runs; says whether it did.
    pub fn signal(&self, signal: Signal) -> bool {
        self.is_alive() && send(self.pid, signal)
    }
}

/// Ends the processes, their descendants and their process groups, with SIGKILL, and waits until all are gone or the
/// time is over. Says what is left.
pub fn end_trees(roots: &[ProcessId], patience: Duration) -> Vec<ProcessId> {
    let deadline = Instant::now() + patience;
    let mut known: BTreeSet<ProcessId> = roots.iter().cloned().collect();
    loop {
        // A child that was just started is found in the next round: its parent is known, or its group is.
        known.extend(family(&table(), &known));
        let alive: Vec<ProcessId> = known
            .iter()
            .filter(|process| process.is_alive())
            .cloned()
            .collect();
        if alive.is_empty() || Instant::now() >= deadline {
            return alive;
        }
        for process in &alive {
            process.signal(Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The descendants of a process, itself not among them.
pub fn descendants(root: &ProcessId) -> Vec<ProcessId> {
    family(&table(), &BTreeSet::from([root.clone()]))
        .into_iter()
        .filter(|process| process != root)
        .collect()
}

/// The process that holds this end of a TCP connection on this machine, if it is another than this one. Both ends are needed:
/// one address may have connections to several others, held by as many processes.
#[cfg(target_os = "linux")]
pub fn holder_of(end: std::net::SocketAddr, other: std::net::SocketAddr) -> Option<ProcessId> {
    let (std::net::SocketAddr::V4(end), std::net::SocketAddr::V4(other)) = (end, other) else {
        return None;
    };
    let inode = socket_inode(&fs::read_to_string("/proc/net/tcp").ok()?, end, other)?;
    let socket = PathBuf::from(format!("socket:[{inode}]"));
    let holds = |pid: u32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd"));
        files.is_ok_and(|files| {
            files
                .flatten()
                .any(|file| fs::read_link(file.path()).is_ok_and(|target| target == socket))
        })
    };
    let pids = table().into_iter().map(|row| row.pid);
    let mut others = pids.filter(|&pid| pid != std::process::id());
    others.find(|&pid| holds(pid)).and_then(ProcessId::of)
}

/// Elsewhere the system does not tell.
#[cfg(not(target_os = "linux"))]
pub fn holder_of(_end: std::net::SocketAddr, _other: std::net::SocketAddr) -> Option<ProcessId> {
    None
}

/// Finds the socket in /proc/net/tcp, which writes addresses as hexadecimal numbers in the machine's own byte order.
#[cfg(target_os = "linux")]
fn socket_inode(tcp: &str, end: std::net::SocketAddrV4, other: std::net::SocketAddrV4) -> Option<String> {
    let ends =
        [end, other].map(|end| format!("{:08X}:{:04X}", u32::from_ne_bytes(end.ip().octets()), end.port()));
    tcp.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields.get(1..3).is_some_and(|found| found == ends);
        is_it.then(|| fields.get(9).map(|&inode| inode.to_owned()))?
    })
}

fn send(pid: u32, signal: Signal) -> bool {
    i32::try_from(pid).is_ok_and(|pid| kill(Pid::from_raw(pid), signal).is_ok())
}

/// What the system's process table says about one process.
#[derive(Debug, Clone)]
struct Row {
    pid: u32,
    parent: u32,
    group: u32,
    ended: bool,
    started: String,
}

/// Members of the roots' groups and everything below them. A root whose pid now belongs to another process is no root.
fn family(table: &[Row], roots: &BTreeSet<ProcessId>) -> BTreeSet<ProcessId> {
    let mut pids: BTreeSet<u32> = roots
        .iter()
        .filter(|root| {
            table
                .iter()
                .all(|row| row.pid != root.pid || row.started == root.started)
        })
        .map(|root| root.pid)
        .collect();
    loop {
        let before = pids.len();
        let more: Vec<u32> = table
            .iter()
            .filter(|row| pids.contains(&row.parent) || pids.contains(&row.group))
            .map(|row| row.pid)
            .collect();
        pids.extend(more);
        if pids.len() == before {
            break;
        }
    }
    table
        .iter()
        .filter(|row| pids.contains(&row.pid) && !row.ended)
        .map(|row| ProcessId {
            pid: row.pid,
            started: row.started.clone(),
        })
        .collect()
}

#[cfg(target_os = "linux")]
fn table() -> Vec<Row> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(row)
        .collect()
}

#[cfg(target_os = "linux")]
fn row(pid: u32) -> Option<Row> {
    parse_stat(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads a line of /proc/PID/stat. The second field, the name, may hold spaces and parentheses.
#[cfg(target_os = "linux")]
fn parse_stat(pid: u32, stat: &str) -> Option<Row> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Row {
        pid,
        ended: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        started: (*fields.get(19)?).to_owned(),
    })
}

#[cfg(not(target_os = "linux"))]
fn table() -> Vec<Row> {
    ps(&["-ax"])
}

#[cfg(not(target_os = "linux"))]
fn row(pid: u32) -> Option<Row> {
    ps(&["-p", &pid.to_string()]).pop()
}

#[cfg(not(target_os = "linux"))]
fn ps(which: &[&str]) -> Vec<Row> {
    let columns = ["-o", "pid=,ppid=,pgid=,stat=,lstart="];
    let Ok(output) = std::process::Command::new("ps")
        .args(which)
        .args(columns)
        .output()
    else {
        return Vec::new();
    };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            Some(Row {
                pid: fields.first()?.parse().ok()?,
                parent: fields.get(1)?.parse().ok()?,
                group: fields.get(2)?.parse().ok()?,
                ended: fields.get(3)?.starts_with('Z'),
                started: fields.get(4..)?.join(" "),
            })
        })
        .collect()
}

/// What a local cloud runs and where it put things outside its directory; kept in a file so that it can be ended
/// without the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The daemon.
    pub daemon: Option<ProcessId>,
    /// Processes by name.
    pub processes: BTreeMap<String, ProcessId>,
    /// Directories outside the cloud directory, to be removed with it.
    pub directories: BTreeSet<PathBuf>,
}

impl RunRecord {
    /// Reads the record; an absent one is empty.
    pub fn read(path: &Path) -> io::Result<Self> {
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }
}

/// The daemon's hand on the run record: every change is in the file before the call returns.
#[derive(Debug)]
pub struct Runtime {
    path: PathBuf,
    record: Mutex<RunRecord>,
}

impl Runtime {
    /// Starts a record in which this process is the daemon.
    pub fn create(path: PathBuf) -> io::Result<Self> {
        let runtime = Self {
            path,
            record: Mutex::new(RunRecord::default()),
        };
        runtime.change(|record| record.daemon = Some(ProcessId::own()))?;
        Ok(runtime)
    }

    /// Records a child that was just started.
    pub fn started(&self, name: &str, pid: u32) -> io::Result<()> {
        let Some(process) = ProcessId::of(pid) else {
            return Ok(());
        };
        self.change(|record| {
            record.processes.insert(name.to_owned(), process);
        })
    }

    /// Forgets a child that has ended and was collected.
    pub fn ended(&self, name: &str) -> io::Result<()> {
        self.change(|record| {
            record.processes.remove(name);
        })
    }

    /// Records a directory outside the cloud directory.
    pub fn directory(&self, path: &Path) -> io::Result<()> {
        self.change(|record| {
            record.directories.insert(path.to_owned());
        })
    }

    /// The record as it is now.
    pub fn now(&self) -> RunRecord {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut RunRecord)) -> io::Result<()> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut record);
        super::state::write_private(
            &self.path,
            &serde_json::to_vec_pretty(&*record).map_err(io::Error::other)?,
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::{os::unix::process::CommandExt, process::Command};

    fn line(pid: u32, parent: u32, group: u32, started: &str) -> Row {
        Row {
            pid,
            parent,
            group,
            ended: false,
            started: started.to_owned(),
        }
    }

    fn id(pid: u32, started: &str) -> ProcessId {
        ProcessId {
            pid,
            started: started.to_owned(),
        }
    }

    #[test]
    fn a_family_is_the_group_and_all_that_descends() {
        let table = [
            line(10, 1, 10, "a"),
            line(11, 10, 10, "b"),
            line(12, 11, 12, "c"), // a group of its own, yet a descendant
            line(13, 1, 10, "d"),  // adopted by init, yet of the group
            line(20, 1, 20, "e"),
        ];
        let family = family(&table, &BTreeSet::from([id(10, "a")]));
        assert_eq!(
            family.iter().map(|process| process.pid).collect::<Vec<_>>(),
            [10, 11, 12, 13]
        );
    }

    #[test]
    fn a_reused_pid_has_no_family() {
        let table = [line(10, 1, 10, "later"), line(11, 10, 10, "b")];
        assert_eq!(
            family(&table, &BTreeSet::from([id(10, "earlier")])),
            BTreeSet::new()
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_name_may_hold_anything() {
        let stat = "7 (a ) b (c) S 3 5 5 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1";
        let row = parse_stat(7, stat).unwrap();
        assert_eq!(
            (row.parent, row.group, row.started.as_str(), row.ended),
            (3, 5, "4711", false)
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_holder_of_a_connection_is_found_and_is_never_this_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut client = Command::new("python3")
            .args(["-c", "import socket, sys; c = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); c.recv(1)"])
            .arg(port.to_string())
            .spawn()
            .unwrap();
        let (stream, peer) = listener.accept().unwrap();
        let here = stream.local_addr().unwrap();
        let holder = holder_of(peer, here).unwrap();
        assert!(holder.is_alive());
        assert_eq!(holder_of(here, peer), None);
        drop(stream);
        client.wait().unwrap();
        assert!(!holder.is_alive());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn two_processes_that_call_from_one_address_are_told_apart() {
        const SCRIPT: &str = "
import socket, sys
c = socket.socket()
c.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
c.bind(('127.0.0.1', int(sys.argv[1])))
c.connect(('127.0.0.1', int(sys.argv[2])))
c.recv(1)
";
        let shared = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let from = shared.local_addr().unwrap().port().to_string();
        drop(shared);
        let connections: Vec<_> = (0..2)
            .map(|_| {
                let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                let to = listener.local_addr().unwrap();
                let client = Command::new("python3")
                    .args(["-c", SCRIPT, &from, &to.port().to_string()])
                    .spawn()
                    .unwrap();
                let (stream, peer) = listener.accept().unwrap();
                (client, stream, peer, to)
            })
            .collect();
        assert_eq!(connections[0].2, connections[1].2, "the same address");
        for (mut client, stream, peer, to) in connections {
            let holder = holder_of(peer, to).map(|holder| holder.pid);
            assert_eq!(holder, Some(client.id()));
            drop(stream);
            client.wait().unwrap();
        }
    }

    #[test]
    fn a_process_is_not_its_successor() {
        let own = ProcessId::own();
        assert!(own.is_alive());
        assert!(!id(own.pid, "another time").is_alive());
        assert!(!id(own.pid, "another time").signal(Signal::SIGKILL));
    }

    #[test]
    fn a_tree_ends_with_its_root() {
        let mut root = Command::new("sh")
            .args(["-c", "sleep 600 & sleep 600"])
            .process_group(0)
            .spawn()
            .unwrap();
        let process = ProcessId::of(root.id()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while descendants(&process).len() < 2 {
            assert!(Instant::now() < deadline, "the shell never started its children");
            std::thread::sleep(Duration::from_millis(2));
        }
        let family = descendants(&process);
        assert_eq!(end_trees(&[process], Duration::from_secs(5)), []);
        assert!(family.iter().all(|process| !process.is_alive()));
        root.wait().unwrap();
    }
}
