//! One question to one server, over its neighbours' port: who dials as `operator` and knows the secret (and, where TLS is spoken, has
//! a certificate for that name) is told how it stands.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use herd_mio::config::Member;
use herd_mio::core::escape::Escaped;
use herd_mio::core::link::OPERATOR;
use herd_mio::core::proof::{Hex, Nonce, Parties, Side, unhex};
use herd_mio::core::settings::{NeighbourTls, Secret};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

/// How long a server may take for each step.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest line that a server may answer with.
const LINE_BYTES: u64 = 65_536;

/// How a server stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// How many clients it knows the position of.
    pub(crate) records: u64,
    /// The same on servers that hold the same records.
    pub(crate) digest: u64,
    /// How many clients are connected to it.
    pub(crate) clients: u64,
    /// Neighbours that it is linked with now.
    pub(crate) linked: Vec<String>,
}

/// Asks, and proves on the way that both sides know the secret.
pub(crate) fn ask(
    member: &Member,
    secret: &Secret,
    tls: Option<&NeighbourTls>,
) -> Result<Standing, String> {
    let address = member
        .peers
        .as_ref()
        .ok_or("it has no address for neighbours")?;
    let found = (address.host.as_str(), address.port)
        .to_socket_addrs()
        .map_err(|error| error.to_string())?;
    let mut failure = "its name has no address".to_owned();
    for address in found {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return over(stream, &member.name, secret, tls),
            Err(error) => failure = format!("{address}: {error}"),
        }
    }
    Err(failure)
}

/// Asks over that connection, in TLS if it is spoken.
fn over(
    stream: TcpStream,
    name: &str,
    secret: &Secret,
    tls: Option<&NeighbourTls>,
) -> Result<Standing, String> {
    stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
        .map_err(|error| error.to_string())?;
    let Some(tls) = tls else {
        return converse(stream, name, secret);
    };
    let host = ServerName::try_from(name.to_owned())
        .map_err(|_| "its name is none that a certificate can have")?;
    let connection = ClientConnection::new(tls.dialling.clone(), host)
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    converse(StreamOwned::new(connection, stream), name, secret)
}

fn converse(stream: impl Read + Write, name: &str, secret: &Secret) -> Result<Standing, String> {
    let told = |error: std::io::Error| error.to_string();
    let mut stream = BufReader::new(stream);
    let mut nonce: Nonce = [0; 16];
    SystemRandom::new()
        .fill(&mut nonce)
        .map_err(|_| "no random numbers")?;

    let greeting = format!("HERD 1 {OPERATOR} {name} {}\n", Hex(&nonce));
    stream
        .get_mut()
        .write_all(greeting.as_bytes())
        .map_err(told)?;
    let greeting = line(&mut stream)?;
    let theirs = greeting
        .strip_prefix(&format!("HERD 1 {name} {OPERATOR} "))
        .and_then(|text| unhex(text.as_bytes()));
    let theirs: Nonce = theirs.ok_or_else(|| unexpected(&greeting))?;
    let parties = Parties {
        dialler: (OPERATOR, &nonce),
        acceptor: (name, &theirs),
    };
    let proof = format!("PROOF {}\n", parties.prove(Side::Dialler, secret));
    stream.get_mut().write_all(proof.as_bytes()).map_err(told)?;
    let proof = line(&mut stream)?;
    let is_proven = |proof: &str| parties.is_proven(Side::Acceptor, secret, proof.as_bytes());
    if !proof.strip_prefix("PROOF ").is_some_and(is_proven) {
        return Err(unexpected(&proof));
    }
    let status = line(&mut stream)?;
    standing(&status).ok_or_else(|| unexpected(&status))
}

fn line(lines: &mut BufReader<impl Read>) -> Result<String, String> {
    let mut text = String::new();
    lines
        .by_ref()
        .take(LINE_BYTES)
        .read_line(&mut text)
        .map_err(|error| error.to_string())?;
    match text.strip_suffix('\n') {
        Some(line) => Ok(line.to_owned()),
        None => Err("it closed the connection".to_owned()),
    }
}

fn unexpected(line: &str) -> String {
    let shown = Escaped(line.strip_prefix("BYE ").unwrap_or(line).as_bytes());
    format!("it said: {shown}")
}

fn standing(line: &str) -> Option<Standing> {
    let mut words = line.strip_prefix("STATUS ")?.split(' ');
    words.next()?; // the boot id
    Some(Standing {
        records: words.next()?.parse().ok()?,
        digest: u64::from_str_radix(words.next()?, 16).ok()?,
        clients: words.next()?.parse().ok()?,
        linked: words.map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_is_taken_apart() {
        let expected = Standing {
            records: 3,
            digest: 255,
            clients: 1,
            linked: vec!["Riley".into(), "Juzang".into()],
        };
        assert_eq!(
            standing("STATUS 0123456789abcdef 3 00000000000000ff 1 Riley Juzang"),
            Some(expected)
        );
        for bad in ["", "STATUS", "STATUS x 3", "STATUS x y 00 1", "BYE no"] {
            assert_eq!(standing(bad), None, "{bad}");
        }
    }
}
