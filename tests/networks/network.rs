//! A network of its own for each test: a namespace for each host, a veth cable from each to one switch, and ways to spoil it.
//!
//! ```text
//!   namespace Alice            namespace of the switch            namespace Bob
//!   eth0 192.0.2.1 ═══ veth ═══ port1 ─ bridge ─ port2 ═══ veth ═══ eth0 192.0.2.2
//! ```
//!
//! What is dropped is dropped where it arrives, before the receiver's kernel looks at it: the sender learns nothing.
//! A namespace has a name only while the network is built; after that it is held by an open file, and by the processes in it. So
//! whatever becomes of the test, killed with SIGKILL or not, the kernel takes the namespace away when the last of them is gone.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::resume_unwind;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// Where `ip` keeps the names of namespaces.
const NAMES: &str = "/var/run/netns";

/// A namespace's name, taken away again when it is dropped.
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

/// Runs a program to its end, given with its arguments as one would type them, and returns what it printed. An error says what was
/// run and what it said.
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

/// Moves the calling thread into a namespace: what it opens and whom it starts is there.
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

/// Does something in a namespace, on a thread that ends with it.
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
    /// The hardware address of its `eth0`.
    mac: String,
}

impl Host {
    fn run(&self, command: &str) -> Result<String, String> {
        run_within(&self.namespace, command)
    }

    /// From now on packets that match do not arrive here.
    fn drop_what(&self, matches: &str) {
        let rule = format!("nft add rule netdev faults arriving {matches} counter drop");
        self.run(&rule).unwrap();
    }
}

/// Hosts on one switch.
pub(crate) struct Network {
    hosts: Vec<Host>,
    /// Held open, for what is in it goes when it goes.
    _switch: File,
}

impl Network {
    /// Hosts that hear one another. The error says what this machine does not have or allow.
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
            // Everything that arrives runs through this chain.
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

    /// A host's address and a port there.
    pub(crate) fn address(&self, name: &str, port: u16) -> SocketAddr {
        (self.host(name).address, port).into()
    }

    /// Does something on a host: a program that it starts and a socket that it opens stay there.
    pub(crate) fn within<T: Send>(&self, name: &str, act: impl FnOnce() -> T + Send) -> T {
        within(&self.host(name).namespace, act).unwrap()
    }

    /// From now on nothing that `from` sends arrives at `to`, as if a wire were broken.
    pub(crate) fn cut(&self, from: &str, to: &str) {
        let mac = &self.host(from).mac;
        self.host(to).drop_what(&format!("ether saddr {mac}"));
    }

    /// The same, but as a filter on the way does it: the hosts still find one another's hardware addresses, so a kernel that gets no
    /// answer never hears that nobody is there.
    pub(crate) fn filter(&self, from: &str, to: &str) {
        let address = self.host(from).address;
        self.host(to).drop_what(&format!("ip saddr {address}"));
    }

    /// Gives the host `from` an address of IPv6, and returns so many others that are silent: what
    /// is sent there arrives at `to`, and is dropped without a word. The error says why that cannot
    /// be done here.
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

    /// From now on everything that is sent arrives.
    pub(crate) fn mend(&self) {
        for host in &self.hosts {
            host.run("nft flush chain netdev faults arriving").unwrap();
        }
    }

    /// From now on so many of a hundred packets do not arrive, whichever it hits.
    pub(crate) fn lose(&self, percent: u32) {
        for host in &self.hosts {
            host.drop_what(&format!("numgen random mod 100 < {percent}"));
        }
    }

    /// How many packets did not arrive at a host because of that.
    pub(crate) fn lost(&self, name: &str) -> u64 {
        let list = "nft list chain netdev faults arriving";
        let rules = self.host(name).run(list).unwrap();
        let (_, count) = rules.split_once("counter packets ").unwrap();
        count.split(' ').next().unwrap().parse().unwrap()
    }

    /// From now on everything arrives so much later. The error says why that cannot be done here.
    pub(crate) fn delay(&self, ms: u32) -> Result<(), String> {
        let rule = format!("tc qdisc add dev eth0 root netem delay {ms}ms");
        let delay = |host: &Host| host.run(&rule).map(drop);
        self.hosts.iter().try_for_each(delay)
    }

    /// From now on no packet is longer.
    pub(crate) fn shorten_packets(&self, bytes: u32) {
        for host in &self.hosts {
            // Between veth interfaces, packets would otherwise travel in bundles.
            let rule = format!("ip link set eth0 mtu {bytes} gso_max_segs 1");
            host.run(&rule).unwrap();
        }
    }

    /// Turns a host's interface off or on.
    pub(crate) fn set_interface(&self, name: &str, is_up: bool) {
        let state = if is_up { "up" } else { "down" };
        let command = format!("ip link set eth0 {state}");
        self.host(name).run(&command).unwrap();
    }

    /// Takes a host's address away or gives it back.
    pub(crate) fn set_address(&self, name: &str, is_there: bool) {
        let host = self.host(name);
        let verb = if is_there { "add" } else { "delete" };
        let command = format!("ip address {verb} {}/24 dev eth0", host.address);
        host.run(&command).unwrap();
    }
}
