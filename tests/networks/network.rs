//! A separate network for each test: a namespace for each host, a veth cable from each host to one
//! switch, and methods that break it.
//!
//! ```text
//!   namespace Alice            namespace of the switch            namespace Bob
//!   eth0 192.0.2.1 ═══ veth ═══ port1 ─ bridge ─ port2 ═══ veth ═══ eth0 192.0.2.2
//! ```
//!
//! Packets are dropped where they arrive, before the receiver's kernel sees them, so the sender
//! learns nothing. A namespace has a name only while the network is built. After that an open file
//! and the processes in it keep it alive. So the kernel removes the namespace when the last of them
//! is gone, even if the test is killed with SIGKILL.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::resume_unwind;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// The directory where `ip` keeps the names of namespaces.
const NAMES: &str = "/var/run/netns";

/// The name of a namespace. Dropping this value removes the name.
struct Name(String);

impl Name {
    fn new() -> Result<Name, String> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("herd-{}-{count}", std::process::id());
        run(&format!("ip netns add {name}"))?;
        Ok(Name(name))
    }

    fn open(&self) -> Result<File, String> {
        let path = format!("{NAMES}/{}", self.0);
        File::open(&path).map_err(|error| format!("{path}: {error}"))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if let Err(reason) = run(&format!("ip netns delete {}", self.0)) {
            eprintln!("a namespace's name is left over: {reason}");
        }
    }
}

/// Runs a program to its end and returns its output. The command is given as one would type it in a
/// shell. An error holds the command and its standard error.
fn run(command: &str) -> Result<String, String> {
    let mut words = command.split(' ');
    let program = words.next().unwrap();
    let output = match Command::new(program).args(words).output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(format!("there is no program `{program}`"));
        }
        Err(error) => return Err(format!("`{command}`: {error}")),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{command}`: {}", said.trim()))
}

/// Moves the calling thread into a namespace: its sockets and its child processes belong to this
/// namespace.
#[cfg(target_os = "linux")]
fn enter(namespace: &File) -> Result<(), String> {
    use std::os::fd::AsFd as _;

    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|error| format!("entering a network namespace: {error}"))
}

#[cfg(not(target_os = "linux"))]
fn enter(_: &File) -> Result<(), String> {
    Err("only Linux has network namespaces".to_owned())
}

/// Runs a closure in a namespace, on a new thread that ends with it.
fn within<T: Send>(namespace: &File, act: impl FnOnce() -> T + Send) -> Result<T, String> {
    thread::scope(|scope| {
        scope
            .spawn(|| enter(namespace).map(|()| act()))
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Runs a program in a namespace.
fn run_within(namespace: &File, command: &str) -> Result<String, String> {
    within(namespace, || run(command))?
}

struct Host {
    name: String,
    namespace: File,
    address: Ipv4Addr,
    /// The hardware address of this host's `eth0`.
    mac: String,
}

impl Host {
    fn run(&self, command: &str) -> Result<String, String> {
        run_within(&self.namespace, command)
    }

    /// From now on this host drops arriving packets that match.
    fn drop_what(&self, matches: &str) {
        let rule = format!("nft add rule netdev faults arriving {matches} counter drop");
        self.run(&rule).unwrap();
    }
}

/// Hosts on one switch.
pub(crate) struct Network {
    hosts: Vec<Host>,
    /// Kept open, because the bridge and its ports vanish with their namespace.
    _switch: File,
}

impl Network {
    /// Builds a network in which all hosts reach one another. The error says what this machine
    /// lacks or forbids.
    pub(crate) fn new(names: &[&str]) -> Result<Network, String> {
        let switch_name = Name::new()?;
        let switch = switch_name.open()?;
        let at_switch = |command: &str| run_within(&switch, command);
        at_switch("ip link add bridge type bridge")?;
        at_switch("ip link set bridge up")?;
        let connect = |(number, name): (u8, &&str)| {
            let host_name = Name::new()?;
            let host = Host {
                name: (*name).to_owned(),
                namespace: host_name.open()?,
                address: Ipv4Addr::new(192, 0, 2, number),
                mac: format!("02:00:00:00:00:{number:02x}"),
            };
            let Host { address, mac, .. } = &host;
            let cable = format!("port{number} type veth peer name eth0 netns");
            at_switch(&format!("ip link add {cable} {}", host_name.0))?;
            at_switch(&format!("ip link set port{number} master bridge up"))?;
            host.run("ip link set lo up")?;
            host.run(&format!("ip link set eth0 address {mac} up"))?;
            host.run(&format!("ip address add {address}/24 dev eth0"))?;
            host.run("nft add table netdev faults")?;
            // All arriving packets pass through this chain.
            let hook = "{ type filter hook ingress device eth0 priority 0; }";
            host.run(&format!("nft add chain netdev faults arriving {hook}"))?;
            Ok(host)
        };
        let hosts: Result<Vec<Host>, String> = (1..).zip(names).map(connect).collect();
        Ok(Network {
            hosts: hosts?,
            _switch: switch,
        })
    }

    fn host(&self, name: &str) -> &Host {
        self.hosts.iter().find(|host| host.name == name).unwrap()
    }

    /// A socket address on this host.
    pub(crate) fn address(&self, name: &str, port: u16) -> SocketAddr {
        (self.host(name).address, port).into()
    }

    /// Runs a closure on a host. The programs it starts and the sockets it opens stay on this host.
    pub(crate) fn within<T: Send>(&self, name: &str, act: impl FnOnce() -> T + Send) -> T {
        within(&self.host(name).namespace, act).unwrap()
    }

    /// From now on no packet from `from` arrives at `to`, as if a wire were broken.
    pub(crate) fn cut(&self, from: &str, to: &str) {
        let mac = &self.host(from).mac;
        self.host(to).drop_what(&format!("ether saddr {mac}"));
    }

    /// Like `cut`, but as a packet filter on the way would do it. ARP still works between the
    /// hosts, so a kernel that gets no answer never reports that the host is unreachable.
    pub(crate) fn filter(&self, from: &str, to: &str) {
        let address = self.host(from).address;
        self.host(to).drop_what(&format!("ip saddr {address}"));
    }

    /// Gives the host `from` an IPv6 address, and returns `count` other addresses that never
    /// answer: packets to them arrive at `to` and are dropped there. The error says why this
    /// machine cannot do that.
    pub(crate) fn silent(&self, from: &str, to: &str, count: u16) -> Result<Vec<Ipv6Addr>, String> {
        let host = self.host(from);
        let mac = &self.host(to).mac;
        host.run("ip address add 2001:db8::1/64 dev eth0 nodad")?;
        let address = |number: u16| {
            let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 1, number);
            let neighbour = format!("{address} lladdr {mac} dev eth0 nud permanent");
            host.run(&format!("ip neighbour replace {neighbour}"))?;
            Ok(address)
        };
        let addresses = (1..=count).map(address).collect();
        self.host(to).drop_what("ip6 daddr 2001:db8::/64");
        addresses
    }

    /// From now on all packets arrive.
    pub(crate) fn mend(&self) {
        for host in &self.hosts {
            host.run("nft flush chain netdev faults arriving").unwrap();
        }
    }

    /// From now on this percentage of all packets is dropped, at random.
    pub(crate) fn lose(&self, percent: u32) {
        for host in &self.hosts {
            host.drop_what(&format!("numgen random mod 100 < {percent}"));
        }
    }

    /// How many packets the first rule of this host has dropped.
    pub(crate) fn lost(&self, name: &str) -> u64 {
        let list = "nft list chain netdev faults arriving";
        let rules = self.host(name).run(list).unwrap();
        let (_, count) = rules.split_once("counter packets ").unwrap();
        count.split(' ').next().unwrap().parse().unwrap()
    }

    /// From now on all packets arrive this much later. The error says why this machine cannot do
    /// that.
    pub(crate) fn delay(&self, ms: u32) -> Result<(), String> {
        let rule = format!("tc qdisc add dev eth0 root netem delay {ms}ms");
        let delay = |host: &Host| host.run(&rule).map(drop);
        self.hosts.iter().try_for_each(delay)
    }

    /// From now on no packet is longer than this.
    pub(crate) fn shorten_packets(&self, bytes: u32) {
        for host in &self.hosts {
            // Otherwise packets would pass between veth interfaces in larger bundles (GSO).
            let rule = format!("ip link set eth0 mtu {bytes} gso_max_segs 1");
            host.run(&rule).unwrap();
        }
    }

    /// Sets a host's interface up or down.
    pub(crate) fn set_interface(&self, name: &str, is_up: bool) {
        let state = if is_up { "up" } else { "down" };
        let command = format!("ip link set eth0 {state}");
        self.host(name).run(&command).unwrap();
    }

    /// Removes a host's address, or adds it again.
    pub(crate) fn set_address(&self, name: &str, is_there: bool) {
        let host = self.host(name);
        let verb = if is_there { "add" } else { "delete" };
        let command = format!("ip address {verb} {}/24 dev eth0", host.address);
        host.run(&command).unwrap();
    }
}
