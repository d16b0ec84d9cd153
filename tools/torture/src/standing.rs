//! How a server stands: asked on its neighbours' port, with the herd's secret, as `herd-status` does.

use std::net::SocketAddr;
use std::time::Instant;

use herd_mio::core::link::OPERATOR;
use herd_mio::core::proof::{Hex, Nonce, Parties, Side, unhex};
use herd_mio::core::settings::Secret;

use crate::clock;
use crate::connection::{Connection, Cut};

/// What it says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// How many clients it knows the position of.
    pub(crate) records: u64,
    /// The same on servers that hold the same records.
    pub(crate) digest: String,
    /// Neighbours that it is linked with now.
    pub(crate) linked: Vec<String>,
}

/// Asks the server called `name` whose neighbours' port is `address`, and proves on the way that both sides know the secret.
///
/// # Errors
/// It does not answer, or otherwise than the protocol has it.
pub(crate) fn ask(
    address: SocketAddr,
    name: &str,
    secret: &str,
    deadline: Instant,
) -> Result<Standing, Cut> {
    let mut connection = Connection::open(address, deadline)?;
    // Any number that was not used before will do for a herd that lives for seconds on loopback.
    let nonce: Nonce = clock::since_1970().as_nanos().to_be_bytes();
    let hello = format!("HERD 1 {OPERATOR} {name} {}\n", Hex(&nonce));
    connection.send(&hello, deadline)?;
    let greeting = line(&mut connection, deadline)?;
    let theirs: Option<Nonce> = greeting
        .strip_prefix(&format!("HERD 1 {name} {OPERATOR} "))
        .and_then(|text| unhex(text.as_bytes()));
    let theirs = theirs.ok_or_else(|| unexpected(&greeting))?;
    let secret = Secret::new(secret.as_bytes().to_vec());
    let parties = Parties {
        dialler: (OPERATOR, &nonce),
        acceptor: (name, &theirs),
    };
    let proof = format!("PROOF {}\n", parties.prove(Side::Dialler, &secret));
    connection.send(&proof, deadline)?;
    let proof = line(&mut connection, deadline)?;
    let is_proven = |proof: &str| parties.is_proven(Side::Acceptor, &secret, proof.as_bytes());
    if !proof.strip_prefix("PROOF ").is_some_and(is_proven) {
        return Err(unexpected(&proof));
    }
    let status = line(&mut connection, deadline)?;
    standing(&status).ok_or_else(|| unexpected(&status))
}

fn line(connection: &mut Connection, deadline: Instant) -> Result<String, Cut> {
    let line = connection.until(b"\n", deadline)?;
    String::from_utf8(line).map_err(|_| Cut::Gone("it said something that is not text".to_owned()))
}

fn unexpected(line: &str) -> Cut {
    Cut::Gone(format!("it said: {}", line.escape_default()))
}

fn standing(line: &str) -> Option<Standing> {
    let mut words = line.strip_prefix("STATUS ")?.split(' ');
    words.next()?; // the boot id
    let records = words.next()?.parse().ok()?;
    let digest = words.next().filter(|digits| digits.len() == 16)?;
    let _clients: u64 = words.next()?.parse().ok()?;
    Some(Standing {
        records,
        digest: digest.to_owned(),
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
            digest: "00000000000000ff".into(),
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
