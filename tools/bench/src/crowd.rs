//! Invented clients: a thousand different names, positions all over the world, and clocks that go
//! forward. Each run has the same clients.

/// How many clients there are.
pub(crate) const CLIENTS: usize = 1_000;
/// The wall clock of the servers at the beginning: a moment in 2021.
pub(crate) const WALL_NS: u64 = 1_621_464_827_000_000_000;

const SECOND_NS: u64 = 1_000_000_000;

/// SplitMix64 (Steele, Lea and Flood 2014). The seed alone decides the numbers, on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// The clients.
pub(crate) struct Crowd {
    names: Vec<String>,
    random: Random,
}

/// One `IAMAT` line and the parts of the expected answer.
pub(crate) struct Said {
    /// The line, LF included.
    pub(crate) line: String,
    /// Its client, position and time, as they are repeated in the answer.
    pub(crate) fields: String,
    /// The time between the client's stamp and the receipt at the server.
    pub(crate) age_ns: u64,
}

impl Said {
    /// The answer that `server` has to give, LF included.
    pub(crate) fn answer(&self, server: &str) -> String {
        let (seconds, nanos) = (self.age_ns / SECOND_NS, self.age_ns % SECOND_NS);
        format!("AT {server} +{seconds}.{nanos:09} {}\n", self.fields)
    }
}

impl Crowd {
    pub(crate) fn new() -> Crowd {
        let mut random = Random::new(2021);
        let words = [
            "kiwi", "mango", "durian", "tram", "bus", "van", "phone", "scooter",
        ];
        let hosts = ["cs.ucla.edu", "example.net", "fleet", "m"];
        let mut names: Vec<String> = (0..CLIENTS)
            .map(|number| {
                let word = words[number % words.len()];
                let host = hosts[number / words.len() % hosts.len()];
                format!("{word}-{number}.{host}")
            })
            .collect();
        for last in (1..names.len()).rev() {
            names.swap(last, random.below(last as u64 + 1) as usize);
        }
        Crowd { names, random }
    }

    pub(crate) fn name(&self, client: usize) -> &str {
        &self.names[client]
    }

    /// A random position with six decimals, which is exact to a decimetre.
    fn location(&mut self) -> String {
        let sign = |random: &mut Random| if random.below(2) == 0 { '+' } else { '-' };
        let random = &mut self.random;
        format!(
            "{}{:02}.{:06}{}{:03}.{:06}",
            sign(random),
            random.below(90),
            random.below(1_000_000),
            sign(random),
            random.below(180),
            random.below(1_000_000)
        )
    }

    /// An `IAMAT` that the server receives at `receipt_ns`. It was stamped at most 50 ms before
    /// that. Two passes are further apart, so the client's next stamp is always later.
    pub(crate) fn iamat(&mut self, client: usize, receipt_ns: u64) -> Said {
        let age_ns = 1_000_000 + self.random.below(49_000_000);
        self.iamat_aged(client, receipt_ns, age_ns)
    }

    /// An `IAMAT` that was stamped `age_ns` before the server receives it.
    pub(crate) fn iamat_aged(&mut self, client: usize, receipt_ns: u64, age_ns: u64) -> Said {
        let stamp_ns = receipt_ns - age_ns;
        let (seconds, nanos) = (stamp_ns / SECOND_NS, stamp_ns % SECOND_NS);
        let location = self.location();
        let fields = format!("{} {location} {seconds}.{nanos:09}", self.names[client]);
        Said {
            line: format!("IAMAT {fields}\n"),
            fields,
            age_ns,
        }
    }
}
