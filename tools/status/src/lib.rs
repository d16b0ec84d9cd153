//! One question to one server, over its neighbours' port: who dials as `operator` and knows the secret (and, where TLS is spoken, has
//! a certificate for that name) is told how it stands.

#![forbid(unsafe_code)]

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use herd_mio::core::escape::Escaped;
use herd_mio::core::link::OPERATOR;
use herd_mio::core::proof::{Hex, Nonce, Parties, Side, unhex};
use herd_mio::core::settings::{NeighbourTls, Secret};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

/// The longest line that a server may answer with.
const LINE_BYTES: u64 = 65_536;

/// How a server stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which life of its process this is.
    pub boot: String,
    /// How many clients it knows the position of.
    pub records: u64,
    /// The same on servers that hold the same records.
    pub digest: u64,
    /// How many clients are connected to it.
    pub clients: u64,
    /// Neighbours that it is linked with now.
    pub linked: Vec<String>,
}

/// Asks the server called `name` whose neighbours' port is `address`, and proves on the way that both sides know the secret.
/// It may take `patience` for each step, of which there are five.
///
/// # Errors
/// It does not answer in time ([`ErrorKind::TimedOut`]), or otherwise than the protocol has it.
pub fn ask(
    address: SocketAddr,
    name: &str,
    secret: &Secret,
    tls: Option<&NeighbourTls>,
    patience: Duration,
) -> io::Result<Standing> {
    let stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let answer = match tls {
        None => converse(stream, name, secret),
        Some(tls) => {
            let host = ServerName::try_from(name.to_owned())
                .map_err(|_| io::Error::other("its name is none that a certificate can have"))?;
            let connection = ClientConnection::new(tls.dialling.clone(), host)
                .map_err(|error| io::Error::other(format!("TLS cannot be set up: {error}")))?;
            converse(StreamOwned::new(connection, stream), name, secret)
        }
    };
    // What a timeout of a socket is called differs between systems, and says nothing.
    answer.map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => io::Error::new(
            ErrorKind::TimedOut,
            format!("it said nothing for {} s", patience.as_secs_f64()),
        ),
        _ => error,
    })
}

fn converse(stream: impl Read + Write, name: &str, secret: &Secret) -> io::Result<Standing> {
    let mut stream = BufReader::new(stream);
    let mut nonce: Nonce = [0; 16];
    SystemRandom::new()
        .fill(&mut nonce)
        .map_err(|_| io::Error::other("no random numbers"))?;

    let hello = format!("HERD 1 {OPERATOR} {name} {}\n", Hex(&nonce));
    stream.get_mut().write_all(hello.as_bytes())?;
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
    stream.get_mut().write_all(proof.as_bytes())?;
    let proof = line(&mut stream)?;
    let is_proven = |proof: &str| parties.is_proven(Side::Acceptor, secret, proof.as_bytes());
    if !proof.strip_prefix("PROOF ").is_some_and(is_proven) {
        return Err(unexpected(&proof));
    }
    let status = line(&mut stream)?;
    standing(&status).ok_or_else(|| unexpected(&status))
}

fn line(lines: &mut BufReader<impl Read>) -> io::Result<String> {
    let mut text = String::new();
    lines.by_ref().take(LINE_BYTES).read_line(&mut text)?;
    match text.strip_suffix('\n') {
        Some(line) => Ok(line.to_owned()),
        None => Err(io::Error::new(
            ErrorKind::UnexpectedEof,
            "it closed the connection",
        )),
    }
}

fn unexpected(line: &str) -> io::Error {
    let shown = Escaped(line.strip_prefix("BYE ").unwrap_or(line).as_bytes());
    io::Error::other(format!("it said: {shown}"))
}

fn standing(line: &str) -> Option<Standing> {
    let mut words = line.strip_prefix("STATUS ")?.split(' ');
    let boot = words.next()?;
    let records = words.next()?.parse().ok()?;
    let digest = words.next().filter(|digits| digits.len() == 16)?;
    Some(Standing {
        boot: boot.to_owned(),
        records,
        digest: u64::from_str_radix(digest, 16).ok()?,
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
            boot: "0123456789abcdef".into(),
            records: 3,
            digest: 255,
            clients: 1,
            linked: vec!["Riley".into(), "Juzang".into()],
        };
        assert_eq!(
            standing("STATUS 0123456789abcdef 3 00000000000000ff 1 Riley Juzang"),
            Some(expected)
        );
        for bad in [
            "",
            "STATUS",
            "STATUS x 3",
            "STATUS x 1 ff 1",
            "STATUS x y 0000000000000000 1",
            "BYE no",
        ] {
            assert_eq!(standing(bad), None, "{bad}");
        }
    }
}
