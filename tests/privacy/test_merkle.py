"""The Merkle tree is RFC 9162's."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root,
    verify_consistency,
    verify_inclusion,
)

# The inputs and roots that implementations of Certificate Transparency test themselves with.
INPUTS = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def definition(leaves: list[bytes]) -> bytes:
    """The recursive definition of RFC 9162 section 2.1.1, as slow as it reads."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(definition(leaves[:split]), definition(leaves[split:]))


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_of_certificate_transparency(size: int) -> None:
    """The eight published roots, each by appending one leaf more."""
    assert root([leaf_hash(data) for data in INPUTS[:size]]).hex() == ROOTS[size - 1]


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    """RFC 9162 section 2.1.1."""
    assert Frontier().root() == EMPTY_ROOT == hashlib.sha256(b"").digest()


trees = st.integers(1, 70).map(lambda n: [leaf_hash(str(i).encode()) for i in range(n)])


@given(trees)
def test_the_frontier_agrees_with_the_definition(leaves: list[bytes]) -> None:
    """Appending one by one gives the recursively defined root, with few hashes kept."""
    tree = Frontier()
    for leaf in leaves:
        before = tree.copy()
        tree.append(leaf)
        assert before.size == tree.size - 1
    assert tree.root() == definition(leaves)


@given(trees, st.data())
def test_inclusion_is_proved_for_every_leaf_and_for_no_other(
    leaves: list[bytes], data: st.DataObject
) -> None:
    """A proof verifies for its leaf, index, size and root, and fails with any of them changed."""
    size = len(leaves)
    index = data.draw(st.integers(0, size - 1))
    proof, top = inclusion_proof(leaves, index), definition(leaves)
    assert verify_inclusion(leaves[index], index, size, proof, top)
    assert len(proof) <= size.bit_length()
    assert not verify_inclusion(leaf_hash(b"other"), index, size, proof, top)
    assert not verify_inclusion(leaves[index], index, size, proof, leaf_hash(b"other"))
    assert not verify_inclusion(leaves[index], index, size, [*proof, top], top)
    other = data.draw(st.integers(-1, size))
    if other != index:
        assert not verify_inclusion(leaves[index], other, size, proof, top)
    if proof:
        place = data.draw(st.integers(0, len(proof) - 1))
        changed = [*proof[:place], leaf_hash(b"other"), *proof[place + 1 :]]
        assert not verify_inclusion(leaves[index], index, size, changed, top)
        assert not verify_inclusion(leaves[index], index, size, proof[:-1], top)


@given(trees, st.data())
def test_consistency_is_proved_for_every_prefix_and_for_no_other(
    leaves: list[bytes], data: st.DataObject
) -> None:
    """A tree that only grew has a proof; one whose past changed has none."""
    size = len(leaves)
    old = data.draw(st.integers(1, size))
    old_root, new_root = definition(leaves[:old]), definition(leaves)
    proof = consistency_proof(leaves, old)
    assert verify_consistency(old, size, old_root, new_root, proof)
    assert not verify_consistency(old, size, leaf_hash(b"other"), new_root, proof)
    assert not verify_consistency(old, size, old_root, leaf_hash(b"other"), proof)
    assert not verify_consistency(old, size, old_root, new_root, [*proof, new_root])
    assert not verify_consistency(size + 1, size, old_root, new_root, proof)
    changed_past = [leaf_hash(b"other"), *leaves[1:]]
    assert not verify_consistency(
        old, size, old_root, definition(changed_past), consistency_proof(changed_past, old)
    )


def test_a_tree_without_leaves_is_the_start_of_every_tree() -> None:
    """Size 0 needs an empty proof and the empty root."""
    assert verify_consistency(0, 3, EMPTY_ROOT, leaf_hash(b"x"), [])
    assert not verify_consistency(0, 3, leaf_hash(b"y"), leaf_hash(b"x"), [])


def test_proofs_for_what_is_not_there_are_refused() -> None:
    """Indices and sizes outside of the tree raise."""
    leaves = [leaf_hash(b"a"), leaf_hash(b"b")]
    for index in (-1, 2):
        with pytest.raises(ValueError, match="index"):
            inclusion_proof(leaves, index)
    for size in (0, 3):
        with pytest.raises(ValueError, match="old_size"):
            consistency_proof(leaves, size)
    with pytest.raises(ValueError, match="full subtrees"):
        Frontier(3, [leaf_hash(b"a")])
