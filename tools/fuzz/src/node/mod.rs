//! A whole server, and a story of what happens to it.
//!
//! ```text
//!   bytes ──► steps (somebody connects, says something, goes; time passes; the disk is full …) ──► host ──► Node
//!                                                                  mobile, neighbour, places, http, disk ◄──┘
//! ```
//!
//! The host drives the server as the event loop does, and after every turn looks at what has to hold. The others play those whom the server
//! deals with, and judge what it says to them. At the end of the story all faults are healed: everything that was asked
//! has to be answered then, and everybody has to know the same. Then the server is told to stop, and has to.

mod host;
mod http;
mod mobile;
mod neighbour;
mod outside;
mod places;
mod tls;

use arbitrary::Unstructured;
use herd_mio::core::base::limits::{LINE_BYTES, Limits};
use herd_mio::core::base::settings::{HostPort, HttpSettings, PlacesApi, Secret, Settings};
use herd_mio::core::journal::durability::Fsync;

use crate::{log, server};
use herd_testkit::fake_disk::{ENDLESS, Queue, Strike};
use host::Host;
use http::Visitor;
use mobile::Mobile;
use neighbour::{DIALLED, NAMES, Talk};
use outside::Peer;

/// Clients that are talked of.
const CLIENTS: [&str; 6] = ["a", "b", "c", "d", "kiwi", "\u{e9}"];
/// Steps of one story.
const MOST_STEPS: usize = 300;
/// Seconds of peace within which everything is answered.
const PEACE_S: u64 = 60;

/// Two bytes for the configuration, then steps.
pub fn node(data: &[u8]) {
    if !log::check(data) {
        return;
    }
    // A story ends where the input does.
    let _ = tell(&mut Unstructured::new(data));
}

fn tell(input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let (kind, scratch): (u8, u8) = input.arbitrary()?;
    let journal = match kind & 3 {
        0 => None,
        1 => Some(Fsync::Always),
        2 => Some(Fsync::Interval),
        _ => Some(Fsync::Never),
    };
    let scratch = [1, 7, 100, 65_536][usize::from(scratch % 4)];
    let mut host = Host::new(settings(kind), journal, scratch);
    if let Some(disk) = &mut host.outside.disk {
        disk.set_reserves(kind & 64 == 0);
    }
    let mut is_stopped = false;
    for _ in 0..MOST_STEPS {
        if input.is_empty() {
            break;
        }
        let step: u8 = input.arbitrary()?;
        is_stopped |= take(&mut host, step >> 1, input)?;
        if step & 1 == 0 {
            host.turn();
        }
    }
    if !is_stopped {
        make_peace(&mut host);
    }
    stop(&mut host);
    Ok(())
}

/// What the server is configured with: limits that a story can reach.
fn settings(kind: u8) -> Settings {
    let mut settings = server::settings();
    settings.secrets = Secret::new(b"known to the herd alone".to_vec()).into();
    settings.places.origin = HostPort {
        host: places::HOST.to_owned(),
        port: 443,
    };
    settings.places.key = Some(Secret::new(server::KEY.to_vec()));
    settings.places.tls = tls::trust();
    if kind & 128 != 0 {
        settings.tls = tls::settings();
    }
    settings.places.api = if kind & 4 == 0 {
        PlacesApi::Legacy
    } else {
        PlacesApi::New
    };
    if kind & 8 != 0 {
        for neighbour in &mut settings.neighbours {
            neighbour.address.host = format!("{}.example", neighbour.name);
        }
    }
    settings.http = Some(HttpSettings {
        listen: HostPort {
            host: "127.0.0.1".to_owned(),
            port: 9100,
        },
        is_exposed: false,
        hosts: Vec::new(),
    });
    settings.limits = Limits {
        drain_ms: 2_000,
        max_http_connections: 2,
        http_head_bytes: 256,
        http_output_bytes: 500,
        http_page_entries: 3,
        max_clients: 6,
        max_clients_per_address: 4,
        max_unproven: 3,
        unproven_grace_ms: 100,
        max_unproven_new: 6,
        unproven_new_ms: 1_000,
        max_places_connections: 2,
        max_places_waiting: 2,
        places_head_bytes: 256,
        places_body_bytes: 4_096,
        output_high_bytes: 2_000,
        output_low_bytes: 500,
        max_records: if kind & 16 == 0 { 5 } else { 5_000 },
        unpacked_records: if kind & 16 == 0 { 2 } else { 16_384 },
        compact_bytes: if kind & 32 == 0 { 1 } else { 1 << 30 },
        ..Limits::default()
    };
    settings
}

/// One step of the story; whether the server is told to stop, or to drain and then stop, in it.
fn take(host: &mut Host, step: u8, input: &mut Unstructured<'_>) -> arbitrary::Result<bool> {
    match step % 32 {
        0 | 1 => {
            let from = input.arbitrary()?;
            host.accept(Peer::Mobile(Mobile::default()), b"", from);
        }
        2 | 3 => {
            let (neighbour, is_honest) = (input.int_in_range(0..=DIALLED - 1)?, input.ratio(3, 4)?);
            let (talk, first) = Talk::new(neighbour, is_honest);
            host.accept(Peer::Neighbour(talk), &first, 0);
        }
        4..=10 => {
            let said = command(input)?;
            let ms = host.ms;
            let is_meant = |peer: &Peer| matches!(peer, Peer::Mobile(_));
            say(host, input, is_meant, |socket| socket.says(&said, ms))?;
        }
        11 => {
            let length = input.int_in_range(0..=60)?;
            let said = input.bytes(length.min(input.len()))?.to_vec();
            say(host, input, |_| true, |socket| socket.disturb(&said))?;
        }
        12 => {
            let is_polite = input.ratio(3, 4)?;
            say(host, input, |_| true, |socket| socket.ends(is_polite))?;
        }
        13 => touch(host, input, |socket| socket.is_reset = true)?,
        14 | 15 => {
            let room = *input.choose(&[0, 1, 100, 3_000, 1 << 20])?;
            touch(host, input, |socket| socket.room = room)?;
        }
        16..=18 => {
            let ms = *input.choose(&[1, 10, 100, 500, 1_000, 3_000, 9_000, 11_000, 65_000])?;
            host.wait(ms);
        }
        19 => {
            // A process that was not run meanwhile.
            host.ms += u64::from(input.arbitrary::<u32>()? >> 8);
        }
        20 => host.off_ns = input.arbitrary::<i64>()? >> input.int_in_range(0..=40)?,
        21 => {
            if let Some(name) = host.outside.look_ups.pop_front() {
                let found = match input.int_in_range(0..=3_u8)? {
                    0 => Err("no answer".to_owned()),
                    1 => Ok(Vec::new()),
                    2 => Ok(vec!["192.0.2.9".parse(), "192.0.2.10".parse()]),
                    _ => Ok(vec!["192.0.2.9".parse()]),
                };
                let found = found.map(|found| found.into_iter().flatten().collect());
                host.node.handle_resolved(&name, found, host.now());
            }
        }
        22 | 23 => {
            let works = input.ratio(3, 4)?;
            connect_first(host, works);
        }
        24 | 25 => {
            if let Some(disk) = &mut host.outside.disk {
                host::work_both(disk);
            }
        }
        26 => trouble_disk(host, input)?,
        27 | 28 => answer_first(host, Some(input))?,
        29 => teach(host, input)?,
        30 => match input.int_in_range(0..=2_u8)? {
            0 => host.restart(),
            1 => restart_neighbour(host, input.int_in_range(0..=DIALLED)?),
            _ => keep_alive(host),
        },
        // The bits of the step that choose nothing else, so that older inputs keep their meaning.
        31 if step == 127 => {
            host.drain();
            return Ok(true);
        }
        _ => {
            if input.ratio(1, 4)? {
                host.stop();
                return Ok(true);
            }
            visit(host, input)?;
        }
    }
    Ok(false)
}

/// Something happens to the disk.
fn trouble_disk(host: &mut Host, input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let state: u8 = input.int_in_range(0..=7)?;
    let strike = *input.choose(&Strike::ALL)?;
    let room = u64::from(input.arbitrary::<u16>()?);
    let Some(disk) = &mut host.outside.disk else {
        return Ok(());
    };
    host.is_disk_troubled = true;
    match state {
        0 | 1 => {
            disk.set_capacity(ENDLESS);
            disk.set_others(0);
            disk.clear_strikes();
            host.is_disk_troubled = false;
        }
        2 => disk.set_full(true),
        3 => disk.set_capacity(disk.used() + room),
        4 => disk.set_others(room),
        5 => disk.strike(strike),
        6 => disk.set_frozen(Queue::Writer, room % 2 == 0),
        _ => disk.set_frozen(Queue::Keeper, room % 2 == 0),
    }
    Ok(())
}

/// A client connects to the HTTP port, or sends a request there.
fn visit(host: &mut Host, input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let is_visitor = |peer: &Peer| matches!(peer, Peer::Visitor(_));
    let is_there = host.outside.sockets.values().any(|it| is_visitor(&it.peer));
    if !is_there || input.ratio(1, 3)? {
        host.accept(Peer::Visitor(Visitor::default()), b"", input.arbitrary()?);
    }
    let mut sockets = host.outside.sockets.iter_mut();
    let visitor = sockets.find(|(_, it)| is_visitor(&it.peer) && !it.has_fin);
    let Some((&place, socket)) = visitor else {
        return Ok(());
    };
    for _ in 0..input.int_in_range(1..=4_u8)? {
        if let Peer::Visitor(visitor) = &mut socket.peer {
            let said = visitor.asks(input)?;
            socket.says(&said, host.ms);
        }
    }
    host.outside.notice(place);
    Ok(())
}

/// What a client may say.
fn command(input: &mut Unstructured<'_>) -> arbitrary::Result<Vec<u8>> {
    let client = *input.choose(&CLIENTS)?;
    let mut said = match input.int_in_range(0..=9_u8)? {
        0..=3 => format!("IAMAT {client} {}\n", place_and_time(input)?).into_bytes(),
        4..=6 => {
            let radius = input.choose(&["10", "0.5", "50.1"])?;
            let bound = input.choose(&["1", "5", "20"])?;
            format!("WHATSAT {client} {radius} {bound}\n").into_bytes()
        }
        7 => input
            .choose(&[&b"\n"[..], b" \t\r\n", b"hello\r\n", b"AT\n"])?
            .to_vec(),
        8 => {
            let length = *input.choose(&[LINE_BYTES - 1, LINE_BYTES, LINE_BYTES + 1, 900])?;
            [&b"x".repeat(length)[..], b"\n"].concat()
        }
        _ => b"unfinished".to_vec(),
    };
    // Often the rest of it comes later, or never.
    if input.ratio(1, 8)? {
        let length = input.int_in_range(0..=said.len())?;
        said.truncate(length);
    }
    Ok(said)
}

fn place_and_time(input: &mut Unstructured<'_>) -> arbitrary::Result<String> {
    let place = input.choose(&["+1+2", "-34.068930-118.445127", "+090.0+180"])?;
    // Around now, long ago, and in a hundred years.
    let seconds = match input.int_in_range(0..=5_u8)? {
        0 => 0,
        1 => 4_700_000_000,
        _ => server::at(0).wall / 1_000_000_000 + u64::from(input.arbitrary::<u8>()?),
    };
    Ok(format!("{place} {seconds}.25"))
}

/// Somebody says something, or ends; whoever breaks into what a neighbour says is no honest neighbour.
fn say(
    host: &mut Host,
    input: &mut Unstructured<'_>,
    is_meant: fn(&Peer) -> bool,
    act: impl FnOnce(&mut outside::Socket),
) -> arbitrary::Result<()> {
    let places: Vec<usize> = host
        .outside
        .sockets
        .iter()
        .filter(|(_, socket)| is_meant(&socket.peer) && !socket.has_fin && !socket.is_connecting)
        .map(|(place, _)| *place)
        .collect();
    if places.is_empty() {
        return Ok(());
    }
    let place = *input.choose(&places)?;
    let mut liar = None;
    if let Some(socket) = host.outside.sockets.get_mut(&place) {
        act(socket);
        if let Peer::Neighbour(talk) = &socket.peer
            && !socket.has_fin
        {
            liar = Some(talk.neighbour);
        }
    }
    if let Some(liar) = liar {
        restart_neighbour(host, liar);
    }
    host.outside.notice(place);
    Ok(())
}

/// Something happens to a socket.
fn touch(
    host: &mut Host,
    input: &mut Unstructured<'_>,
    act: impl FnOnce(&mut outside::Socket),
) -> arbitrary::Result<()> {
    let places: Vec<usize> = host.outside.sockets.keys().copied().collect();
    if places.is_empty() {
        return Ok(());
    }
    let place = *input.choose(&places)?;
    if let Some(socket) = host.outside.sockets.get_mut(&place) {
        act(socket);
    }
    host.outside.notice(place);
    Ok(())
}

/// The first connection that is being made is made, or is not; whether there was one.
fn connect_first(host: &mut Host, works: bool) -> bool {
    let first = host.outside.sockets.iter().find(|(_, it)| it.is_connecting);
    let Some(place) = first.map(|(place, _)| *place) else {
        return false;
    };
    host.connect(place, works);
    true
}

/// Places answers the first question that it was asked; an empty answer, if there is nothing to choose from.
fn answer_first(host: &mut Host, input: Option<&mut Unstructured<'_>>) -> arbitrary::Result<()> {
    let is_asked =
        |socket: &outside::Socket| matches!(&socket.peer, Peer::Origin(origin) if origin.asked > 0);
    let first = host.outside.sockets.iter_mut().find(|(_, it)| is_asked(it));
    let Some((&place, socket)) = first else {
        return Ok(());
    };
    let mut nothing = Unstructured::new(&[]);
    if let Peer::Origin(origin) = &mut socket.peer {
        let (answer, closes) = origin.answer(input.unwrap_or(&mut nothing))?;
        socket.says(&answer, host.ms);
        if closes {
            socket.ends(true);
        }
    }
    host.outside.notice(place);
    Ok(())
}

/// A neighbour tells of a client of its own.
fn teach(host: &mut Host, input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let neighbour = input.int_in_range(0..=DIALLED)?;
    let (client, skew) = (input.choose(&CLIENTS)?, input.choose(&["+0.25", "-61.00"])?);
    let (rest, syncs) = (place_and_time(input)?, input.arbitrary()?);
    let name = NAMES[neighbour];
    let line = format!("AT {name} {skew}0000000 {client} {rest}");
    let said = host.neighbours[neighbour].teach(line.as_bytes(), syncs);
    tell_links(host, neighbour, &said);
    Ok(())
}

/// A neighbour says something on all its links.
fn tell_links(host: &mut Host, neighbour: usize, said: &[u8]) {
    let mut spoke = Vec::new();
    for (place, socket) in &mut host.outside.sockets {
        if let Peer::Neighbour(talk) = &socket.peer
            && talk.neighbour == neighbour
            && talk.is_honest
            && talk.is_linked
            && !socket.has_fin
        {
            socket.says(said, host.ms);
            spoke.push(*place);
        }
    }
    spoke
        .into_iter()
        .for_each(|place| host.outside.notice(place));
}

/// A neighbour begins anew; what it says on old connections counts for nothing.
fn restart_neighbour(host: &mut Host, neighbour: usize) {
    host.neighbours[neighbour].restart();
    for socket in host.outside.sockets.values_mut() {
        if let Peer::Neighbour(talk) = &mut socket.peer
            && talk.neighbour == neighbour
        {
            talk.is_honest = false;
        }
    }
}

/// All honest neighbours say that they are there.
fn keep_alive(host: &mut Host) {
    for neighbour in 0..NAMES.len() {
        let said = host.neighbours[neighbour].sync();
        tell_links(host, neighbour, &said);
    }
}

/// Whether this neighbour is linked as it should be.
fn is_linked(host: &Host, neighbour: usize) -> bool {
    host.outside
        .sockets
        .values()
        .any(|socket| match &socket.peer {
            Peer::Neighbour(talk) => {
                let is_it = talk.neighbour == neighbour && talk.is_honest && talk.is_linked;
                is_it && !talk.is_over && !socket.has_fin && !socket.is_reset
            }
            Peer::Mobile(_) | Peer::Origin(_) | Peer::Visitor(_) => false,
        })
}

/// All that was wrong is healed; then everything that was asked is answered, and everybody knows the same.
fn make_peace(host: &mut Host) {
    host.scratch = 65_536;
    // One client may have asked for more than can be answered in that time; as long as it hears something, it is not forgotten.
    let (mut second, mut last_heard, mut heard) = (0, 0, 0);
    while second < last_heard + PEACE_S {
        for neighbour in 0..DIALLED {
            if !is_linked(host, neighbour) && second % 8 == 0 {
                let (talk, first) = Talk::new(neighbour, true);
                host.accept(Peer::Neighbour(talk), &first, 0);
            }
        }
        for _ in 0..4 {
            heal(host);
            host.turn();
        }
        keep_alive(host);
        host.wait(1_000);
        if unrest(host).is_none() {
            break;
        }
        second += 1;
        let mobiles = host
            .outside
            .sockets
            .values()
            .filter_map(|socket| match &socket.peer {
                Peer::Mobile(mobile) => Some(mobile.heard_bytes()),
                Peer::Neighbour(_) | Peer::Origin(_) | Peer::Visitor(_) => None,
            });
        let now_heard = mobiles.sum();
        if now_heard > heard {
            (last_heard, heard) = (second, now_heard);
        }
    }
    if let Some(unrest) = unrest(host) {
        panic!("after {PEACE_S} s without an answer: {unrest}");
    }
    host.restart();
}

/// Who still waits for what.
fn unrest(host: &mut Host) -> Option<String> {
    for socket in host.outside.sockets.values_mut() {
        if let Peer::Mobile(mobile) = &mut socket.peer
            && !mobile.is_content()
        {
            return Some(format!("not answered: {}", mobile.show()));
        }
        if let Peer::Visitor(visitor) = &socket.peer
            && !visitor.is_content()
        {
            return Some("a request to the HTTP port is not answered".to_owned());
        }
    }
    // Where there is no room for a record, not everybody can have it.
    for (place, neighbour) in host.neighbours.iter().enumerate() {
        let name = NAMES[place];
        if host.has_refused() {
            return None;
        }
        if !is_linked(host, place) {
            return Some(format!("{name} is not linked"));
        }
        let names = CLIENTS.iter().map(|client| client.as_bytes());
        let known = neighbour.table.keys().map(|client| &**client);
        for client in names.chain(known) {
            let (theirs, ours) = (neighbour.table.get(client), host.line(client));
            if ours.as_ref() != theirs {
                return Some(format!("{name} has {theirs:?}, the server {ours:?}"));
            }
        }
    }
    None
}

fn heal(host: &mut Host) {
    if let Some(disk) = &mut host.outside.disk {
        disk.set_capacity(ENDLESS);
        disk.set_others(0);
        disk.clear_strikes();
        for queue in Queue::ALL {
            disk.set_frozen(queue, false);
        }
        disk.do_all();
        host.is_disk_troubled = false;
    }
    while let Some(name) = host.outside.look_ups.pop_front() {
        let found = "192.0.2.9".parse().into_iter().collect();
        host.node.handle_resolved(&name, Ok(found), host.now());
    }
    while connect_first(host, true) {}
    // With nothing to choose from, it is the first kind of answer.
    let _ = answer_first(host, None);
    let places: Vec<usize> = host.outside.sockets.keys().copied().collect();
    for place in places {
        if let Some(socket) = host.outside.sockets.get_mut(&place)
            && socket.room < 1 << 20
        {
            socket.room = 1 << 20;
            host.outside.notice(place);
        }
    }
}

/// The server stops, whatever the others do.
fn stop(host: &mut Host) {
    host.turn();
    let life = host.life;
    host.stop();
    host.wait(host.settings.limits.stop_ms + 1);
    // Unless it gives up for the sake of its disk meanwhile.
    assert!(host.life != life || host.node.is_stopped() && host.outside.sockets.is_empty());
}
