"""Damage to embedding stores."""

from tsllm.embeddings.database import Space, open_database


def flip_a_bit(store, text, backbone):
    """Flip a bit of a text's vector."""
    space = Space.of(backbone, stored_dtype=store.dtype)
    key = store.fill([text], backbone)[0].tobytes()

    def flip(transaction):
        record = bytearray(transaction.get(key))
        record[5] ^= 1
        transaction.put(key, bytes(record))

    open_database(store.path, create=False).write(space.name, flip)
