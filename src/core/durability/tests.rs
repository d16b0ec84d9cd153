//! What the lives of a server say of what a neighbour lacks. The rest is tested over a disk, in `tests/durability`.

use super::*;

#[test]
fn a_neighbour_resumes_where_its_life_of_ours_and_the_next_one_agree() {
    let salts = Entropy::new(&[7; 32]);
    let mut durability = Durability::new("Riley", Fsync::Always, &Limits::default(), 0, salts);
    durability.restore_life(BootId(9), 0, 6);
    durability.restore_life(BootId(1), 0, 7); // on a machine that was started anew
    durability.restore_life(BootId(2), 90, 7); // the first life had got to 100, of which ten were not written
    let opened = Opened {
        length: 1_000,
        format: Some(Format::Two(Salt(1))),
        machine: 7,
    };
    durability.opened(opened, BootId(3), 150);
    assert_eq!(durability.resume(BootId(9), 50), None);
    assert_eq!(durability.resume(BootId(1), 50), Some(50));
    assert_eq!(durability.resume(BootId(1), 100), Some(90));
    assert_eq!(durability.resume(BootId(2), 150), Some(150));
    assert_eq!(durability.resume(BootId(2), 170), Some(150));
    assert_eq!(durability.resume(BootId(3), 160), Some(160));
    assert_eq!(durability.resume(BootId(4), 1), None);
}
