//! One fault: the system call that fails, its file, the error, and the time. `--only` takes a fault
//! in this form.

use std::fmt;
use std::str::FromStr;

/// Not an error: the call succeeds late.
pub(crate) const DELAY: &str = "DELAY";
/// The delay of a late call. It is longer than the limits for a line and for a client's output (see
/// stage.rs).
const DELAY_US: u32 = 2_500_000;
/// The name of an eventfd in strace's output and in `/proc/PID/fd`.
const EVENTFD: &str = "anon_inode:[eventfd]";

/// A system call, and the file that it acts on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Target {
    pub(crate) call: String,
    /// A path, relative to the run's directory if it is inside it, or `[eventfd]`. `None` stands
    /// for any file.
    pub(crate) object: Option<String>,
}

impl Target {
    /// The path to which strace is limited, if the run is in this directory.
    pub(crate) fn path(&self, directory: &str) -> Option<String> {
        let object = self.object.as_deref()?;
        Some(match object {
            "[eventfd]" => EVENTFD.to_owned(),
            "." => directory.to_owned(),
            absolute if absolute.starts_with('/') => absolute.to_owned(),
            relative => format!("{directory}/{relative}"),
        })
    }

    /// The reverse of `path`: the object with this path in strace's output. `None` if its name
    /// differs from run to run.
    pub(crate) fn object(path: &str, directory: &str) -> Option<String> {
        if path == EVENTFD {
            return Some("[eventfd]".to_owned());
        }
        if path == directory {
            return Some(".".to_owned());
        }
        let inside = path
            .strip_prefix(directory)
            .and_then(|rest| rest.strip_prefix('/'));
        let absolute = path.starts_with('/').then_some(path);
        inside.or(absolute).map(str::to_owned)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.call)?;
        self.object
            .iter()
            .try_for_each(|object| write!(f, "@{object}"))
    }
}

/// The numbers of the calls that fail. strace counts each thread's calls separately. So number 2 is
/// the second call of each thread that makes two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum When {
    /// Only this call, counted from 1.
    Nth(u32),
    /// The calls from the first number to the second.
    Burst(u32, u32),
    /// This call and all later ones.
    From(u32),
}

impl When {
    /// Whether the fault ends. Then the server has to recover from it.
    pub(crate) const fn ends(self) -> bool {
        match self {
            When::Nth(_) | When::Burst(..) => true,
            When::From(_) => false,
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            When::Nth(n) => write!(f, "{n}"),
            When::Burst(first, last) => write!(f, "{first}..{last}"),
            When::From(first) => write!(f, "{first}+"),
        }
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<When, String> {
        let wrong = || format!("{text:?} is not N, N+ or N..M, counted from 1");
        let number = |text: &str| text.parse().ok().filter(|&n: &u32| n > 0).ok_or_else(wrong);
        if let Some(first) = text.strip_suffix('+') {
            return number(first).map(When::From);
        }
        match text.split_once("..") {
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                (first < last)
                    .then_some(When::Burst(first, last))
                    .ok_or_else(wrong)
            }
            None => number(text).map(When::Nth),
        }
    }
}

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Case {
    pub(crate) target: Target,
    /// A name from errno(3), or [`DELAY`].
    pub(crate) error: String,
    pub(crate) when: When,
}

impl Case {
    /// strace's expression for the fault.
    pub(crate) fn injection(&self) -> String {
        let Case {
            target,
            error,
            when,
        } = self;
        let call = &target.call;
        match error.as_str() {
            DELAY => format!("inject={call}:delay_enter={DELAY_US}:when={when}"),
            error => format!("inject={call}:error={error}:when={when}"),
        }
    }

    /// Whether no new connection is ever accepted. Then no client can get a refusal either.
    pub(crate) fn deafens(&self) -> bool {
        !self.when.ends() && matches!(self.target.call.as_str(), "accept4" | "accept")
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case {
            target,
            error,
            when,
        } = self;
        write!(f, "{target}:{error}:{when}")
    }
}

/// An argument of `--only`: `CALL[@OBJECT][:ERROR[:WHEN]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Only {
    target: Target,
    error: Option<String>,
    when: Option<When>,
}

impl Only {
    /// Whether the argument selects a planned case.
    pub(crate) fn admits(&self, case: &Case) -> bool {
        let Only {
            target,
            error,
            when,
        } = self;
        // With a WHEN, the argument selects one case only, so a missing object stands for a case
        // without one.
        let any_object = target.object.is_none() && when.is_none();
        target.call == case.target.call
            && (any_object || target.object == case.target.object)
            && error.as_ref().is_none_or(|error| *error == case.error)
            && when.is_none_or(|when| when == case.when)
    }

    /// The case, if the argument has all parts. The plan need not contain it.
    pub(crate) fn case(&self) -> Option<Case> {
        Some(Case {
            target: self.target.clone(),
            error: self.error.clone()?,
            when: self.when?,
        })
    }
}

impl fmt::Display for Only {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.target)?;
        self.error
            .iter()
            .try_for_each(|error| write!(f, ":{error}"))?;
        self.when.iter().try_for_each(|when| write!(f, ":{when}"))
    }
}

impl FromStr for Only {
    type Err = String;

    fn from_str(text: &str) -> Result<Only, String> {
        let mut parts = text.split(':');
        let target = parts.next().unwrap_or_default();
        let (call, object) = match target.split_once('@') {
            Some((call, object)) => (call, Some(object.to_owned())),
            None => (target, None),
        };
        let is_word = |word: &str, letter: fn(&u8) -> bool| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|byte| letter(&byte) || byte.is_ascii_digit() || byte == b'_')
        };
        if !is_word(call, u8::is_ascii_lowercase) || object.as_deref() == Some("") {
            return Err(
                "it must begin with a system call, such as accept4 or write@riley.log".to_owned(),
            );
        }
        let error = parts.next().map(str::to_owned);
        if let Some(error) = &error
            && error != DELAY
            && !(error.starts_with('E') && is_word(error, u8::is_ascii_uppercase))
        {
            return Err(format!(
                "{error:?} is not the name of an error, such as EMFILE in accept4:EMFILE"
            ));
        }
        let when = parts.next().map(When::from_str).transpose()?;
        if parts.next().is_some() {
            return Err("it must have at most three parts: CALL:ERROR:WHEN".to_owned());
        }
        Ok(Only {
            target: Target {
                call: call.to_owned(),
                object,
            },
            error,
            when,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(text: &str) -> Case {
        text.parse::<Only>().unwrap().case().unwrap()
    }

    #[test]
    fn a_case_survives_display_and_parse() {
        for text in [
            "accept4:EMFILE:2",
            "accept4:EMFILE:3+",
            "fdatasync@data/journal:EIO:1",
            "read@/etc/hosts:EINTR:1..5",
            "write@[eventfd]:EIO:1",
            "fsync@.:EIO:1",
            "fsync:DELAY:1",
        ] {
            assert_eq!(case(text).to_string(), text);
        }
    }

    #[test]
    fn a_case_becomes_an_strace_injection() {
        let injection = |text| case(text).injection();
        assert_eq!(
            injection("accept4:EMFILE:2"),
            "inject=accept4:error=EMFILE:when=2"
        );
        assert_eq!(
            injection("read@x:EINTR:1..5"),
            "inject=read:error=EINTR:when=1..5"
        );
        assert_eq!(
            injection("connect:ENETUNREACH:4+"),
            "inject=connect:error=ENETUNREACH:when=4+"
        );
        assert_eq!(
            injection("fsync@.:DELAY:2"),
            "inject=fsync:delay_enter=2500000:when=2"
        );
    }

    #[test]
    fn an_object_is_converted_to_a_path_and_back() {
        for (text, path) in [
            ("write@riley.log:EIO:1", "/run/7/riley.log"),
            ("fsync@.:EIO:1", "/run/7"),
            ("openat@/etc/hosts:EIO:1", "/etc/hosts"),
            ("write@[eventfd]:EIO:1", "anon_inode:[eventfd]"),
        ] {
            let target = case(text).target;
            assert_eq!(target.path("/run/7").as_deref(), Some(path));
            assert_eq!(Target::object(path, "/run/7"), target.object);
        }
        assert_eq!(Target::object("socket:[77]", "/run/7"), None);
        assert_eq!(
            Target::object("/run/77/x", "/run/7").as_deref(),
            Some("/run/77/x")
        );
        assert_eq!(case("accept4:EMFILE:2").target.path("/run/7"), None);
    }

    #[test]
    fn a_partial_case_selects_from_the_plan() {
        let planned = case("write@riley.log:ENOSPC:2");
        let admits = |text: &str| text.parse::<Only>().unwrap().admits(&planned);
        for meant in [
            "write",
            "write:ENOSPC",
            "write@riley.log",
            "write@riley.log:ENOSPC:2",
        ] {
            assert!(admits(meant), "{meant}");
        }
        for other in [
            "writev",
            "write:EIO",
            "write@out",
            "write@riley.log:ENOSPC:3",
            "write:ENOSPC:2",
        ] {
            assert!(!admits(other), "{other}");
        }
        let Ok(part) = "write:ENOSPC".parse::<Only>() else {
            panic!()
        };
        assert_eq!(part.case(), None);
    }

    #[test]
    fn invalid_arguments_are_rejected() {
        for wrong in [
            "",
            "Accept4",
            "accept4@",
            "accept4:emfile",
            "accept4:MFILE",
            "accept4:EMFILE:0",
            "accept4:EMFILE:two",
            "accept4:EMFILE:5..2",
            "accept4:EMFILE:2:3",
            "@x",
        ] {
            assert!(wrong.parse::<Only>().is_err(), "{wrong}");
        }
    }
}
