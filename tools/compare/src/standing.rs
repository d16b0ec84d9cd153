//! How a server stands: asked on its neighbours' port, with the herd's secret, as `herd-status` does.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use herd_mio::core::link::OPERATOR;
use herd_mio::core::proof::{Hex, Nonce, Parties, Side, unhex};
use herd_mio::core::settings::Secret;
use ring::rand::{SecureRandom, SystemRandom};

/// How long a server may take for each step.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest line that a server may answer with.
const LINE_BYTES: u64 = 65_536;

/// What it says of itself.
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
///
/// # Errors
/// It does not answer, or otherwise than the protocol has it.
pub fn ask(address: SocketAddr, name: &str, secret: &str) -> io::Result<Standing> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut nonce: Nonce = [0; 16];
    SystemRandom::new()
        .fill(&mut nonce)
        .map_err(|_| io::Error::other("no random numbers"))?;

    writeln!(stream, "HERD 1 {OPERATOR} {name} {}", Hex(&nonce))?;
    let greeting = line(&mut lines)?;
    let theirs: Option<Nonce> = greeting
        .strip_prefix(&format!("HERD 1 {name} {OPERATOR} "))
        .and_then(|text| unhex(text.as_bytes()));
    let theirs = theirs.ok_or_else(|| unexpected(&greeting))?;
    let secret = Secret::new(secret.as_bytes().to_vec());
    let parties = Parties {
        dialler: (OPERATOR, &nonce),
        acceptor: (name, &theirs),
    };
    writeln!(stream, "PROOF {}", parties.prove(Side::Dialler, &secret))?;
    let proof = line(&mut lines)?;
    let is_proven = |proof: &str| parties.is_proven(Side::Acceptor, &secret, proof.as_bytes());
    if !proof.strip_prefix("PROOF ").is_some_and(is_proven) {
        return Err(unexpected(&proof));
    }
    let status = line(&mut lines)?;
    standing(&status).ok_or_else(|| unexpected(&status))
}

fn line(lines: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut text = String::new();
    lines.by_ref().take(LINE_BYTES).read_line(&mut text)?;
    match text.strip_suffix('\n') {
        Some(line) => Ok(line.to_owned()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn unexpected(line: &str) -> io::Error {
    io::Error::other(format!("it said: {}", line.escape_default()))
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
        for bad in ["", "STATUS", "STATUS x 3", "STATUS x 1 ff 1", "BYE no"] {
            assert_eq!(standing(bad), None, "{bad}");
        }
    }
}
