//! Stored results come back as they were, and damaged ones do no harm.
use proptest::prelude::*;
use steward_core::cache::payload::{Parts, PayloadError, decode, decode_front, encode, front_bytes};

fn encoded(parts: &Parts, compress_above: usize) -> Vec<u8> {
    let mut out = vec![9; 100];
    encode(parts, compress_above, &mut out).expect("memory");
    out
}

/// Reads everything there is, as a caller would.
fn read_all(bytes: &[u8]) -> Result<usize, PayloadError> {
    if let (Ok(length), Ok(front)) = (front_bytes(bytes), decode_front(bytes)) {
        assert!(length <= bytes.len() && front.deps().count() + front.relations().count() <= bytes.len());
    }
    let view = decode(bytes)?;
    let mut scratch = Vec::new();
    let body = view.body(&mut scratch)?;
    Ok(view.deps().count() + view.relations().count() + body.tuples.len() + body.json.map_or(0, <[u8]>::len))
}

/// Bytes with repetitions, or without.
fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    let repeated =
        (prop::collection::vec(any::<u8>(), 1..20), 0..most / 20).prop_map(|(part, times)| part.repeat(times));
    prop_oneof![repeated, prop::collection::vec(any::<u8>(), 0..most)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn comes_back_as_it_was(
        deps in prop::collection::vec(any::<(u32, u64)>(), 0..20), relations in prop::collection::vec(any::<u32>(), 0..20),
        rows in any::<u32>(), tuples in bytes(4_000), json in prop::option::of(bytes(4_000)), compress_above in 0usize..3_000
    ) {
        let parts = Parts { deps: &deps, rows, tuples: &tuples, json: json.as_deref(), relations: &relations };
        let stored = encoded(&parts, compress_above);
        let view = decode(&stored).unwrap();
        prop_assert_eq!(view.deps().collect::<Vec<_>>(), deps.clone());
        prop_assert_eq!(view.relations().collect::<Vec<_>>(), relations.clone());
        prop_assert_eq!(view.front.rows, rows);
        let front = front_bytes(&stored).unwrap();
        prop_assert_eq!(decode_front(&stored[..front]), Ok(view.front));
        prop_assert!(front == 0 || decode_front(&stored[..front - 1]).is_err());
        let mut scratch = vec![7; 10];
        let body = view.body(&mut scratch).unwrap();
        prop_assert_eq!((body.tuples, body.json), (tuples.as_slice(), json.as_deref()));
        let plain = encoded(&parts, usize::MAX);
        prop_assert!(stored.len() <= plain.len());
        prop_assert_eq!(view.front.is_compressed(), stored.len() < plain.len());
        prop_assert!(!view.front.is_compressed() || view.body_bytes() > compress_above);
    }

    #[test]
    fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read_all(&bytes);
    }

    #[test]
    fn any_bytes_behind_a_format_do_no_harm(
        words in prop::collection::vec(prop_oneof![0u32..40, any::<u32>()], 12), rest in prop::collection::vec(any::<u8>(), 0..400)
    ) {
        let mut damaged = encoded(&Parts::default(), 0);
        for (place, word) in damaged.chunks_exact_mut(4).zip(words).skip(1) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        damaged.extend(rest);
        let _ = read_all(&damaged);
    }

    #[test]
    fn damaged_results_do_no_harm(
        tuples in bytes(2_000), json in prop::option::of(bytes(2_000)),
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in prop::option::of(any::<prop::sample::Index>())
    ) {
        let parts = Parts { deps: &[(1, 2)], rows: 3, tuples: &tuples, json: json.as_deref(), relations: &[4] };
        let mut damaged = encoded(&parts, 0);
        for (at, value) in damages {
            let at = at.index(damaged.len());
            damaged[at] = value;
        }
        if let Some(cut) = cut {
            let length = cut.index(damaged.len());
            prop_assert!(decode(&damaged[..length]).is_err());
        }
        let _ = read_all(&damaged);
    }
}

#[test]
fn sections_are_aligned() {
    for (relations, tuples) in (0..9).flat_map(|relations| (0..9).map(move |tuples| (relations, tuples))) {
        let (relations, tuples) = (vec![1; relations], vec![2; tuples]);
        let parts = Parts { deps: &[(1, 1)], relations: &relations, tuples: &tuples, json: Some(b"[]"), rows: 1 };
        let stored = encoded(&parts, usize::MAX);
        let mut scratch = Vec::new();
        let body = decode(&stored).unwrap().body(&mut scratch).unwrap();
        let offset = |section: &[u8]| section.as_ptr() as usize - stored.as_ptr() as usize;
        assert_eq!((offset(body.tuples) % 8, offset(body.json.unwrap()) % 8), (0, 0));
    }
}

#[test]
fn a_body_that_compresses_is_stored_shorter() {
    let tuples = b"0123456789".repeat(1_000);
    let parts = Parts { tuples: &tuples, rows: 1_000, ..Parts::default() };
    let stored = encoded(&parts, 4_096);
    assert!(stored.len() < 300, "{}", stored.len());
    assert_eq!(encoded(&parts, 10_000).len(), 48 + 10_000);
    assert_eq!(read_all(&stored), Ok(10_000));
}

#[test]
fn the_largest_expansion_is_accepted() {
    let tuples = vec![0; 10_000_000];
    let stored = encoded(&Parts { tuples: &tuples, ..Parts::default() }, 0);
    assert_eq!(read_all(&stored), Ok(10_000_000));
}

#[test]
fn a_length_that_lz4_cannot_reach_is_refused_without_memory_for_it() {
    let mut stored = encoded(&Parts { tuples: &[0; 1_000], ..Parts::default() }, 0);
    stored[32..40].copy_from_slice(&(1u64 << 40).to_ne_bytes());
    assert_eq!(decode(&stored).unwrap_err(), PayloadError::Length(stored.len()));
}

#[test]
fn errors_say_what_was_found() {
    assert_eq!(decode(&[1; 10]).unwrap_err().to_string(), "stored result of 10 bytes is shorter than its header");
    assert_eq!(decode(&[0; 48]).unwrap_err().to_string(), "stored result has format 0x00000000");
    let mut longer = encoded(&Parts::default(), 0);
    longer.push(0);
    let wrong = "stored result of 49 bytes does not have the length that its header tells";
    assert_eq!(decode(&longer).unwrap_err().to_string(), wrong);
    let mut other = encoded(&Parts { tuples: &[0; 1_000], ..Parts::default() }, 0);
    other[32..40].copy_from_slice(&1_001u64.to_ne_bytes());
    assert_eq!(read_all(&other).unwrap_err().to_string(), "stored result cannot be decompressed to 1001 bytes");
}
