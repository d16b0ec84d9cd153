//! The invented places. They depend only on the point and the radius of the request.
//!
//! | latitude | places |
//! |---|---|
//! | up to ±80° | 60 |
//! | beyond ±80°, up to ±85° | 7 (one page, no page token) |
//! | beyond ±85° | none |
//!
//! Names, ids and directions come from the point rounded to four decimals (about 11 m). Distances
//! grow with the radius, so places fill any radius. The first five names of a page are difficult on
//! purpose: letters beyond ASCII, escaped quotes, `&` and `'`, brackets and a backslash.

/// The greatest number that Google returns: three pages of twenty.
pub(crate) const MOST: usize = 60;
/// The number between 80° and 85°.
pub(crate) const FEW: usize = 7;

/// The mean radius of the earth, in metres.
const EARTH_M: f64 = 6_371_008.8;
/// Places stay within this part of the radius, because coordinates are rounded to seven decimals
/// (about a centimetre).
const MARGIN: f64 = 0.95;

/// An invented place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Place {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) latitude: f64,
    pub(crate) longitude: f64,
    /// `12 Imaginary Lane, Nowhere`.
    pub(crate) address: String,
    pub(crate) kind: &'static Kind,
    /// From 1.0 to 5.0, with one decimal.
    pub(crate) rating: f64,
    pub(crate) ratings: u64,
}

impl Place {
    /// The full code, such as `8FVC9G8F+6X`, and the short code that is used with a town's name.
    pub(crate) fn plus_code(&self) -> (String, String) {
        let code = plus_code(self.latitude, self.longitude);
        let short = code.chars().skip(4).collect();
        (code, short)
    }

    /// The box that a map would show. Google's is about 150 m in each direction.
    pub(crate) fn viewport(&self) -> Viewport {
        const HALF_DEGREES: f64 = 0.001_348_980_291_5;
        Viewport {
            south: self.latitude - HALF_DEGREES,
            west: self.longitude - HALF_DEGREES,
            north: self.latitude + HALF_DEGREES,
            east: self.longitude + HALF_DEGREES,
        }
    }
}

/// A box in degrees.
pub(crate) struct Viewport {
    pub(crate) south: f64,
    pub(crate) west: f64,
    pub(crate) north: f64,
    pub(crate) east: f64,
}

/// A kind of place, with the icon and the colour that Google uses.
#[derive(Debug, PartialEq)]
pub(crate) struct Kind {
    pub(crate) title: &'static str,
    pub(crate) types: &'static [&'static str],
    pub(crate) icon: &'static str,
    pub(crate) colour: &'static str,
}

const KINDS: [Kind; 6] = [
    Kind {
        title: "Cafe",
        types: &["cafe", "food", "point_of_interest", "establishment"],
        icon: "cafe",
        colour: "#FF9E67",
    },
    Kind {
        title: "Restaurant",
        types: &["restaurant", "food", "point_of_interest", "establishment"],
        icon: "restaurant",
        colour: "#FF9E67",
    },
    Kind {
        title: "Book Store",
        types: &["book_store", "store", "point_of_interest", "establishment"],
        icon: "shopping",
        colour: "#4B96F3",
    },
    Kind {
        title: "Library",
        types: &["library", "point_of_interest", "establishment"],
        icon: "library",
        colour: "#13B5C7",
    },
    Kind {
        title: "Park",
        types: &["park", "point_of_interest", "establishment"],
        icon: "tree",
        colour: "#4DB546",
    },
    Kind {
        title: "Museum",
        types: &[
            "museum",
            "tourist_attraction",
            "point_of_interest",
            "establishment",
        ],
        icon: "museum",
        colour: "#13B5C7",
    },
];

const ADJECTIVES: [&str; 16] = [
    "Paper",
    "Velvet",
    "Borrowed",
    "Clockwork",
    "Sleeping",
    "Second-Hand",
    "Invisible",
    "Copper",
    "Upside-Down",
    "Patient",
    "Wandering",
    "Salted",
    "Forgotten",
    "Polite",
    "Cardboard",
    "Improbable",
];
const NOUNS: [&str; 16] = [
    "Lantern",
    "Teapot",
    "Heron",
    "Staircase",
    "Compass",
    "Umbrella",
    "Pretzel",
    "Orchard",
    "Walrus",
    "Typewriter",
    "Kite",
    "Almanac",
    "Turnip",
    "Lighthouse",
    "Button",
    "Semaphore",
];
/// Letters of two, three and four bytes, so that a parser that counts characters instead of bytes
/// fails.
const BEYOND_ASCII: [&str; 6] = [
    "Café Façade",
    "Žluťoučký",
    "Smörgåsbord",
    "夢の",
    "Ψευδές",
    "🫖",
];
const STREETS: [&str; 6] = [
    "Imaginary Lane",
    "Pretend Street",
    "Make-Believe Row",
    "Fictional Way",
    "Nonesuch Square",
    "Rue Inventée",
];

/// The places around a point, in no visible order, like Google's order by "prominence".
///
/// The radius is in metres. The same arguments give the same places on every machine.
pub(crate) fn places(latitude: f64, longitude: f64, radius_m: f64) -> Vec<Place> {
    let count = match latitude.abs() {
        beyond if beyond > 85.0 => 0,
        beyond if beyond > 80.0 => FEW,
        _ => MOST,
    };
    let mut random = Random::at(latitude, longitude);
    let first_name = random.below(256);
    (0..count)
        .map(|index| {
            place(
                &mut random,
                index,
                first_name,
                (latitude, longitude),
                radius_m,
            )
        })
        .collect()
}

fn place(
    random: &mut Random,
    index: usize,
    first_name: usize,
    centre: (f64, f64),
    radius_m: f64,
) -> Place {
    // 37 and 256 have no common divisor, so all sixty places have different pairs of words.
    let pair = (first_name + 37 * index) % 256;
    let (adjective, noun) = (ADJECTIVES[pair / 16], NOUNS[pair % 16]);
    let name = match index % 10 {
        1 => format!(
            "{} {noun} (fictional)",
            BEYOND_ASCII[random.below(BEYOND_ASCII.len())]
        ),
        2 => format!("The \"{adjective}\" {noun} (fictional)"),
        3 => format!("{adjective} & {noun}'s (fictional)"),
        4 => format!("{adjective} ]}}, [{noun}\\{{ (fictional)"),
        _ => format!("The {adjective} {noun} (fictional)"),
    };
    // With the square root, the places are spread evenly over the disc. Without it, most would be
    // near the centre.
    let distance_m = radius_m * MARGIN * random.unit().sqrt();
    let (latitude, longitude) =
        destination(centre, random.unit() * std::f64::consts::TAU, distance_m);
    let address = format!(
        "{} {}, Nowhere",
        1 + random.below(199),
        STREETS[random.below(STREETS.len())]
    );
    Place {
        id: format!("ChIJ-fictional-{:012x}", random.next() >> 16),
        name,
        latitude,
        longitude,
        address,
        kind: &KINDS[random.below(KINDS.len())],
        rating: (10 + random.below(41)) as f64 / 10.0,
        ratings: 1 + random.below(2_000) as u64,
    }
}

/// The point after so many metres along a great circle, rounded to seven decimals as Google does.
fn destination((latitude, longitude): (f64, f64), bearing: f64, distance_m: f64) -> (f64, f64) {
    let angle = distance_m / EARTH_M;
    let from = latitude.to_radians();
    let to = (from.sin() * angle.cos() + from.cos() * angle.sin() * bearing.cos()).asin();
    let turn =
        (bearing.sin() * angle.sin() * from.cos()).atan2(angle.cos() - from.sin() * to.sin());
    let east = longitude + turn.to_degrees();
    let wrapped = (east + 180.0).rem_euclid(360.0) - 180.0;
    (round7(to.to_degrees()), round7(wrapped))
}

fn round7(degrees: f64) -> f64 {
    (degrees * 1e7).round() / 1e7
}

/// A ten-digit Open Location Code (<https://github.com/google/open-location-code>). It has five
/// pairs in base 20, latitude first, and is exact to 1/8000 of a degree.
fn plus_code(latitude: f64, longitude: f64) -> String {
    const DIGITS: &[u8; 20] = b"23456789CFGHJMPQRVWX";
    let mut north = ((latitude + 90.0) * 8000.0)
        .floor()
        .clamp(0.0, 180.0 * 8000.0 - 1.0) as usize;
    let mut east = ((longitude + 180.0) * 8000.0)
        .floor()
        .clamp(0.0, 360.0 * 8000.0 - 1.0) as usize;
    let mut pairs = [['2'; 2]; 5];
    for pair in pairs.iter_mut().rev() {
        *pair = [
            char::from(DIGITS[north % 20]),
            char::from(DIGITS[east % 20]),
        ];
        north /= 20;
        east /= 20;
    }
    let mut code: String = pairs.iter().flatten().collect();
    code.insert(8, '+');
    code
}

/// splitmix64 (Steele, Lea and Flood, 2014). It is written out here, so that no release of a
/// library can change the places.
struct Random(u64);

impl Random {
    /// Seeded with a point that is rounded to four decimals.
    fn at(latitude: f64, longitude: f64) -> Random {
        // Whole numbers, because -0.0 and 0.0 are one point, and so are 180° east and 180° west.
        let north = (latitude * 1e4).round() as i64;
        let east = ((longitude * 1e4).round() as i64).rem_euclid(3_600_000);
        let mut seed = Random(north as u64);
        Random(seed.next() ^ east as u64)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`. The bias of the remainder does not matter here.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// A number from 0 up to but not including 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A checksum of a few numbers, for page tokens. It detects mistakes, but not forgeries.
pub(crate) fn checksum(numbers: &[u64]) -> u64 {
    numbers
        .iter()
        .fold(0, |sum, number| Random(sum ^ number).next())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The haversine distance, in metres.
    fn distance_m(from: (f64, f64), to: (f64, f64)) -> f64 {
        let half = |a: f64, b: f64| ((b - a).to_radians() / 2.0).sin().powi(2);
        let chord = half(from.0, to.0)
            + from.0.to_radians().cos() * to.0.to_radians().cos() * half(from.1, to.1);
        2.0 * EARTH_M * chord.sqrt().asin()
    }

    #[test]
    fn splitmix64_matches_the_published_values() {
        // From the reference implementation (https://prng.di.unimi.it/splitmix64.c), seed 1234567.
        let mut random = Random(1_234_567);
        let drawn = [random.next(), random.next(), random.next()];
        assert_eq!(
            drawn,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn plus_codes_match_the_published_values() {
        // From the test data of google/open-location-code.
        assert_eq!(plus_code(47.365_59, 8.524_997), "8FVC9G8F+6X");
        assert_eq!(plus_code(20.370_112_5, 2.782_234_375), "7FG49QCJ+2V");
    }

    #[test]
    fn the_same_point_has_the_same_places() {
        let places_of = |latitude, longitude| places(latitude, longitude, 1_000.0);
        assert_eq!(places_of(34.0689, -118.4452), places_of(34.0689, -118.4452));
        assert_ne!(places_of(34.0689, -118.4452), places_of(34.0690, -118.4452));
        let names = |latitude, longitude| -> Vec<String> {
            places_of(latitude, longitude)
                .into_iter()
                .map(|place| place.name)
                .collect()
        };
        assert_eq!(
            names(34.068_921, -118.445_181),
            names(34.0689, -118.4452),
            "rounded to four decimals"
        );
        assert_eq!(names(-0.0, 180.0), names(0.0, -180.0));
    }

    #[test]
    fn invented_places_are_stable_across_versions() {
        let first = &places(34.0689, -118.4452, 1_000.0)[0];
        assert_eq!(
            (
                first.name.as_str(),
                first.address.as_str(),
                first.id.as_str()
            ),
            (
                "The Cardboard Typewriter (fictional)",
                "35 Make-Believe Row, Nowhere",
                "ChIJ-fictional-f514aa1a8dad"
            ),
        );
    }

    #[test]
    fn places_lie_within_the_radius() {
        for centre in [
            (0.0, 0.0),
            (34.0689, -118.4452),
            (-33.86, 151.2),
            (79.9, 179.999),
            (-84.9, -180.0),
        ] {
            for radius_m in [1.0, 500.0, 50_000.0] {
                for place in places(centre.0, centre.1, radius_m) {
                    let away_m = distance_m(centre, (place.latitude, place.longitude));
                    assert!(
                        away_m <= radius_m,
                        "{away_m} m from {centre:?}, asked for {radius_m} m"
                    );
                    assert!(
                        (-180.0..180.0).contains(&place.longitude),
                        "{}",
                        place.longitude
                    );
                }
            }
        }
    }

    #[test]
    fn names_and_ids_are_distinct_and_plainly_invented() {
        let places = places(1.5, 2.5, 100.0);
        let names: HashSet<&str> = places.iter().map(|place| place.name.as_str()).collect();
        let ids: HashSet<&str> = places.iter().map(|place| place.id.as_str()).collect();
        assert_eq!((names.len(), ids.len()), (MOST, MOST));
        assert!(
            places
                .iter()
                .all(|place| place.name.ends_with(" (fictional)"))
        );
        assert!(
            places
                .iter()
                .all(|place| place.address.ends_with(", Nowhere"))
        );
        assert!(!places[1].name.is_ascii());
        assert!(places[2].name.contains('"'));
        assert!(places[4].name.contains("]}") && places[4].name.contains('\\'));
    }

    #[test]
    fn places_are_few_in_the_north_and_none_at_the_poles() {
        let count = |latitude| places(latitude, 10.0, 1_000.0).len();
        assert_eq!(
            [80.0, 80.1, -85.0, 85.1, -90.0].map(count),
            [MOST, FEW, FEW, 0, 0]
        );
    }
}
