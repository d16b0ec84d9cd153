//! The steps of the demo: which commands the servers get, in what order, and why. Every answer is
//! checked before it is shown as right.

use std::time::Duration;

use herd_places::Places;
use herd_testkit::clock;

use crate::answer::{Nearby, Position};
use crate::events::Events;
use crate::herd::Herd;
use crate::plan::{KIWI, Who};
use crate::question::{Question, Reply};
use crate::stage::Stage;
use crate::stop::{Stop, failure};

/// A second client.
const MANGO: &str = "mango";

/// The time that an update may take to reach every server. It takes milliseconds, but the machine
/// may be busy.
const PROPAGATION: Duration = Duration::from_secs(20);
/// The wait before a server that does not have the record yet is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(5);
/// At most so many bytes of a wrong answer are shown.
const SHOWN_BYTES: usize = 2000;

/// Plays all steps.
pub(crate) fn play(
    herd: &mut Herd,
    places: &Places,
    events: &mut Events,
    stage: &mut Stage,
) -> Result<(), Stop> {
    let mut talk = Talk {
        herd,
        places,
        events,
        stage,
        steps: 0,
        right: 0,
        handed_out: Vec::new(),
        places_shown: false,
    };
    talk.introduce()?;

    talk.step(
        "A client sends its position",
        "The client kiwi.cs.ucla.edu sends Riley its latitude and longitude, with a time in POSIX seconds. Riley answers \
         with its own name and with the delay after that time. It also sends the position to its neighbours.",
    )?;
    let at_riley = talk.iamat(Who::Riley, KIWI, "+34.068930-118.445127")?;

    talk.step(
        "Another server answers what is near that client",
        "Campbell is two links away from Riley, and had no connection with the client. But servers flood their records \
         through the herd, so Campbell has Riley's record. It asks Google Places for at most 3 places within 10 km. In this \
         demo, a stand-in answers with invented places, over real TLS.",
    )?;
    talk.whatsat(Who::Campbell, KIWI, 10, 3, &at_riley)?;

    talk.step(
        "An invalid command comes back",
        "A server answers an invalid command with a question mark and a copy of it. Here the signs of the location are \
         missing.",
    )?;
    talk.mistake(
        Who::Juzang,
        "IAMAT kiwi.cs.ucla.edu 34.068930,-118.445127 1621464827",
    )?;

    talk.step(
        "The client has moved",
        "This time it sends its position to Bernard. Bernard's record is newer than Riley's, and replaces it on every server. \
         So Riley answers with Bernard's record, not with its own older one.",
    )?;
    let at_bernard = talk.iamat(Who::Bernard, KIWI, "+34.021122-118.396467")?;
    talk.whatsat(Who::Riley, KIWI, 5, 2, &at_bernard)?;

    talk.step(
        "A server is killed",
        "The demo kills Jaquez with SIGKILL, so Jaquez cannot close its links or save anything. One of the two paths from \
         Bernard to Riley is broken. The path through Juzang still works: the position that another client, mango, sends to \
         Bernard reaches Riley.",
    )?;
    talk.kill(Who::Jaquez)?;
    let mango_at_bernard = talk.iamat(Who::Bernard, MANGO, "-33.856784+151.215297")?;
    talk.whatsat(Who::Riley, MANGO, 1, 1, &mango_at_bernard)?;

    talk.step(
        "The server restarts, and gets all records",
        "The demo starts Jaquez again, without any record. Its neighbours link with it, and send it all their records: those \
         that it had before, and those that it missed.",
    )?;
    talk.start_again(Who::Jaquez)?;
    talk.whatsat(Who::Jaquez, MANGO, 1, 1, &mango_at_bernard)?;
    talk.whatsat(Who::Jaquez, KIWI, 10, 1, &at_bernard)?;

    let right = talk.right;
    stage.verdict(&format!(
        "All {right} answers were correct: every byte, and a plausible delay."
    ));
    Ok(())
}

/// The conversation so far.
struct Talk<'a> {
    herd: &'a mut Herd,
    places: &'a Places,
    events: &'a mut Events,
    stage: &'a mut Stage,
    steps: usize,
    /// The number of right answers.
    right: usize,
    /// Every AT line that answered an IAMAT. A server that has not received the newest record yet
    /// may answer with an older one of these.
    handed_out: Vec<String>,
    /// A question to Places has been shown.
    places_shown: bool,
}

/// The answer of a server to a WHATSAT.
enum Heard {
    /// The expected record, and the places near it.
    Expected(Nearby),
    /// No record, or an older one.
    NotYet,
    /// A wrong answer, and why it is wrong.
    Wrong(String),
}

impl Talk<'_> {
    fn introduce(&mut self) -> Result<(), Stop> {
        self.stage.picture(self.herd.plan(), |_| true);
        self.stage.explain(
            "All six links are up. Each server has proved to its neighbours that it knows the herd's secret. Below, → marks a \
             command of a client, ← the server's answer, and ✓ the checks of the answer.",
        );
        self.events.pause(self.stage.time_to_read())
    }

    fn step(&mut self, title: &str, text: &str) -> Result<(), Stop> {
        self.steps += 1;
        self.stage.step(self.steps, title, text);
        self.events.pause(self.stage.time_to_read())
    }

    /// Sends a client's position to a server, stamped with the current time. Returns the AT line of
    /// the answer.
    fn iamat(
        &mut self,
        who: Who,
        client: &'static str,
        location: &'static str,
    ) -> Result<String, Stop> {
        let question = self.connect(who, "IAMAT")?;
        let position = Position {
            client,
            location,
            time: clock::since_1970(),
        };
        let command = position.command();
        let reply = question.ask(&command, self.events)?;
        let read = clock::since_1970();

        self.stage.sent(who, &command);
        let checked = match &reply.error {
            None => position.check(who.name(), &reply.bytes, read),
            Some(error) => Err(error.to_string()),
        };
        match checked {
            Ok(line) => {
                self.stage.received(who, &line);
                self.handed_out.push(line.clone());
                self.right(&format!(
                    "{}'s own name, a plausible delay, and a copy of the command's arguments",
                    who.name()
                ))?;
                Ok(line)
            }
            Err(why) => wrong(
                who,
                &command,
                &position.expected(who.name()),
                &reply.bytes,
                &why,
            ),
        }
    }

    /// Asks a server for the places near a client, again and again until it has the expected
    /// record.
    fn whatsat(
        &mut self,
        who: Who,
        client: &str,
        radius_km: u8,
        bound: usize,
        record: &str,
    ) -> Result<(), Stop> {
        let command = format!("WHATSAT {client} {radius_km} {bound}");
        self.stage.sent(who, &command);
        let deadline = clock::now() + PROPAGATION;
        let mut times = 0;
        loop {
            times += 1;
            let asked_before = self.places.counts().requests;
            let reply = self.connect(who, &command)?.ask(&command, self.events)?;
            let why = match self.hear(&reply, &command, bound, record) {
                Heard::Expected(_) if self.places.counts().requests == asked_before => {
                    "Places was not asked".to_owned()
                }
                Heard::Expected(nearby) => {
                    self.show_question_to_places();
                    return self.show(who, record, &nearby, times);
                }
                Heard::NotYet if clock::now() < deadline => {
                    self.events.pause(ASK_AGAIN)?;
                    continue;
                }
                Heard::NotYet => format!(
                    "the record did not arrive within {} s ({times} questions)",
                    PROPAGATION.as_secs()
                ),
                Heard::Wrong(why) => why,
            };
            let expected = format!("{record} LF, JSON with {bound} results and status OK, LF LF");
            return wrong(who, &command, &expected, &reply.bytes, &why);
        }
    }

    fn hear(&self, reply: &Reply, command: &str, bound: usize, record: &str) -> Heard {
        if let Some(error) = &reply.error {
            return Heard::Wrong(error.to_string());
        }
        if reply.bytes == format!("? {command}\n").into_bytes() {
            return Heard::NotYet;
        }
        if reply.bytes.is_empty() {
            return Heard::Wrong("the connection was closed without an answer".to_owned());
        }
        let Some(end) = reply.bytes.iter().position(|byte| *byte == b'\n') else {
            return Heard::Wrong("it has no LF".to_owned());
        };
        let (first, rest) = reply.bytes.split_at(end);
        if first == record.as_bytes() {
            return match Nearby::check(&rest[1..], bound) {
                Ok(nearby) => Heard::Expected(nearby),
                Err(why) => Heard::Wrong(why),
            };
        }
        if self.handed_out.iter().any(|line| line.as_bytes() == first) {
            return Heard::NotYet;
        }
        Heard::Wrong("it does not begin with the record from the answer to the IAMAT".to_owned())
    }

    /// Shows a request that the stand-in received. One is enough to show that the servers do ask.
    fn show_question_to_places(&mut self) {
        if !std::mem::replace(&mut self.places_shown, true)
            && let Some(request) = self.places.requests().last()
        {
            let target = request.target_without_key();
            let (path, query) = target.split_once('?').unwrap_or((&target, ""));
            let method = &request.method;
            self.stage.question_to_places(&format!("{method} {path}"));
            self.stage.detail(&query.replace('&', "  "));
        }
    }

    fn show(&mut self, who: Who, record: &str, nearby: &Nearby, times: u32) -> Result<(), Stop> {
        self.stage.received(who, record);
        let places = nearby.names.len();
        let plural = if places == 1 { "" } else { "s" };
        self.stage.detail(&format!(
            "and {} bytes of JSON with {places} place{plural}:",
            nearby.size
        ));
        for name in &nearby.names {
            // Names from Google may contain control characters. Those could move the terminal's
            // cursor.
            let name: String = name.chars().filter(|c| !c.is_control()).collect();
            self.stage.detail(&format!("  · {name}"));
        }
        if times > 1 {
            self.stage
                .detail(&format!("(the record arrived after {times} questions)"));
        }
        self.right(&format!(
            "the same AT line; JSON with status OK and {places} result{plural}; two LFs at the end"
        ))
    }

    /// Sends an invalid command.
    fn mistake(&mut self, who: Who, command: &str) -> Result<(), Stop> {
        self.stage.sent(who, command);
        let reply = self.connect(who, command)?.ask(command, self.events)?;
        let expected = format!("? {command}");
        let why = match &reply.error {
            Some(error) => error.to_string(),
            None if reply.bytes == format!("{expected}\n").into_bytes() => {
                self.stage.received(who, &expected);
                return self.right("a copy of the command");
            }
            None => "it is not `? ` and a copy of the command".to_owned(),
        };
        wrong(who, command, &expected, &reply.bytes, &why)
    }

    fn kill(&mut self, who: Who) -> Result<(), Stop> {
        self.herd.kill(who)?;
        let herd = &*self.herd;
        self.stage
            .picture(herd.plan(), |who| herd.process(who).is_some());
        self.events.pause(self.stage.time_to_look())
    }

    fn start_again(&mut self, who: Who) -> Result<(), Stop> {
        let began = clock::now();
        self.herd.start_again(who, self.events)?;
        let took = clock::now().saturating_duration_since(began).as_millis();
        let process = self.herd.process(who).unwrap_or_default();
        let neighbours: Vec<&str> = who.neighbours().map(Who::name).collect();
        self.stage.detail(&format!(
            "{} is now process {process} and is linked with {} ({took} ms after its start)",
            who.name(),
            neighbours.join(" and ")
        ));
        self.events.pause(self.stage.time_to_look())
    }

    fn right(&mut self, why: &str) -> Result<(), Stop> {
        self.right += 1;
        self.stage.right(why);
        self.events.pause(self.stage.time_to_look())
    }

    fn connect(&self, who: Who, command: &str) -> Result<Question, Stop> {
        let address = self.herd.clients(who);
        Question::connect(address).or_else(|error| {
            let name = who.name();
            failure(format!(
                "cannot connect to {name} at {address} for {command}: {error}"
            ))
        })
    }
}

/// Ends the demo because of a wrong answer.
fn wrong<T>(who: Who, command: &str, expected: &str, came: &[u8], why: &str) -> Result<T, Stop> {
    let name = who.name();
    let shown = match came {
        [] => "nothing".to_owned(),
        _ => came[..came.len().min(SHOWN_BYTES)]
            .escape_ascii()
            .to_string(),
    };
    let more = match came.len().saturating_sub(SHOWN_BYTES) {
        0 => String::new(),
        more => format!(" … and {more} bytes"),
    };
    failure(format!(
        "{name}'s answer is wrong: {why}\n  sent      {command}\n  expected  {expected}\n  got       {shown}{more}"
    ))
}
