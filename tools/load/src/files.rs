//! The limit of open files. Each connection needs one, and a shell's usual limit is 1,024.

use herd_testkit::failure::Failure;

/// Open files besides connections: standard streams, epoll, `/proc`, results.
const OTHERS: u64 = 40;

/// Makes sure that this many connections can be open at once.
pub(crate) fn allow(connections: usize) -> Result<(), Failure> {
    let needed = connections as u64 + OTHERS;
    let limit = rlimit::increase_nofile_limit(rlimit::INFINITY).map_err(|error| {
        Failure::Failed(format!("cannot raise the limit of open files: {error}"))
    })?;
    if limit < needed {
        return Err(Failure::Usage(format!(
            "{connections} connections need {needed} open files, but the hard limit is {limit}; raise it (ulimit -Hn {needed}, as root) or use fewer connections"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_connections_for_the_file_limit_are_reported() {
        assert_eq!(allow(1), Ok(()));
        let (_, hard) = rlimit::Resource::NOFILE.get().unwrap();
        if let Ok(hard) = usize::try_from(hard) {
            let Err(Failure::Usage(what)) = allow(hard) else {
                panic!("{hard} connections need more than {hard} files");
            };
            assert!(what.contains(&format!("the hard limit is {hard}; raise it")));
        }
    }
}
