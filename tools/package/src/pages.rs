//! What a manual page says beyond the command line: files, variables without a flag, and signals.

/// A name, and what is to be said of it.
pub(crate) type Entry = (&'static str, &'static str);

/// The sections of a manual page that clap does not know. An empty section is left out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    /// Variables that no flag has.
    pub(crate) environment: &'static [Entry],
    /// FILES.
    pub(crate) files: &'static [Entry],
    /// SIGNALS.
    pub(crate) signals: &'static [Entry],
    /// SEE ALSO: other programs of the herd.
    pub(crate) see_also: &'static [&'static str],
}

const HERD_FILE: Entry = (
    "herd.toml",
    "The description of the herd, given with --config: its servers and links, certificates, Places, limits and log. \
     Paths in it are relative to its own directory. The Debian package has an example in /etc/herd-mio/herd.toml.",
);

const SECRET: Entry = (
    "HERD_SECRET",
    "The secret that the herd's servers share. Other processes of the same user can read the environment, so a file is safer.",
);

const STOP: Entry = ("SIGTERM, SIGINT", "End the program.");

/// herd-mio(1)
pub(crate) const HERD_MIO: Page = Page {
    environment: &[
        SECRET,
        (
            "HERD_PLACES_KEY",
            "The key for Google Places. A file (--places-key-file) is safer.",
        ),
    ],
    files: &[
        HERD_FILE,
        (
            "NAME.log",
            "The log of the server NAME, in the working directory. --log-file or the table [log] names another file. \
             NAME.log.1 and so on are older parts, if the server rotates its log.",
        ),
        (
            "DIR/journal",
            "The journal of the server, where --data-dir is DIR. With data_dir in the herd's description, DIR is the directory \
             NAME in it. It has positions in plain text, and only the server's user can read it. herd-journal(1) reads it.",
        ),
        (
            "DIR/journal.new",
            "A journal that a compaction writes. It takes the place of the journal when it is complete.",
        ),
    ],
    signals: &[
        (
            "SIGTERM, SIGINT",
            "Stop: accept no new clients, finish the commands that have begun, send all updates to the neighbours, and end. This \
             takes at most 5 seconds. A second signal ends the server at once.",
        ),
        (
            "SIGHUP",
            "Read certificates, keys and the file with the secret again, and open the log again. Links and clients stay connected.",
        ),
        (
            "SIGUSR1",
            "Open the log again, after it was moved away. Nothing else changes.",
        ),
        (
            "SIGUSR2",
            "Drain: take no new clients, close the clients one after another over limits.drain_ms, then stop.",
        ),
    ],
    see_also: &["herd-client", "herd-journal", "herd-certificates"],
};

/// herd-journal(1)
pub(crate) const HERD_JOURNAL: Page = Page {
    environment: &[],
    files: &[
        (
            "DIR/journal",
            "The journal of a server, where DIR is its data directory.",
        ),
        (
            "DIR/journal.damaged",
            "The damaged journal that repair --in-place has replaced.",
        ),
    ],
    signals: &[STOP],
    see_also: &["herd-mio"],
};

/// herd-client(1)
pub(crate) const HERD_CLIENT: Page = Page {
    environment: &[
        SECRET,
        ("NO_COLOR", "If it is set, answers have no colours."),
        (
            "XDG_STATE_HOME",
            "The directory below which the prompt keeps its history.",
        ),
    ],
    files: &[
        HERD_FILE,
        (
            "~/.local/state/herd-client/history",
            "The history of the prompt. With XDG_STATE_HOME it is $XDG_STATE_HOME/herd-client/history.",
        ),
    ],
    signals: &[STOP],
    see_also: &["herd-mio", "herd-certificates"],
};

/// herd-certificates(1)
pub(crate) const HERD_CERTIFICATES: Page = Page {
    environment: &[],
    files: &[
        HERD_FILE,
        (
            "DIR/ca.pem",
            "The certificate of the herd's authority. Every server has it.",
        ),
        (
            "DIR/ca.key",
            "The key of the authority. Keep it off the servers.",
        ),
        (
            "DIR/NAME.pem, DIR/NAME.key",
            "The certificate and the key of the server NAME.",
        ),
        (
            "DIR/operator.pem, DIR/operator.key",
            "The certificate and the key for herd-client status and forget.",
        ),
        (
            "DIR/clients.pem, DIR/clients.key",
            "The certificate and the key for TLS with clients.",
        ),
    ],
    signals: &[],
    see_also: &["herd-mio", "herd-client"],
};

/// herd-load(1)
pub(crate) const HERD_LOAD: Page = Page {
    environment: &[SECRET],
    files: &[HERD_FILE],
    signals: &[(
        "SIGTERM, SIGINT",
        "End the run, and report what was measured. A second signal ends the program at once.",
    )],
    see_also: &["herd-mio", "herd-client", "herd-places"],
};

/// herd-places(1)
pub(crate) const HERD_PLACES: Page = Page {
    environment: &[],
    files: &[(
        "places-ca.pem",
        "The certificate authority that a server has to trust (herd-mio --places-ca). Each start makes a new one.",
    )],
    signals: &[STOP],
    see_also: &["herd-mio", "herd-load"],
};
