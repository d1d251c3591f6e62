"""DNS questions as bytes, and their answers. Dnslib knows the format, `core.dns.lookup` what to say.

Names are given to dnslib as bytes: text would go through IDNA, for which Python loads a module, and that cannot be
read any more by a process that has no rights.
"""

from __future__ import annotations

from dnslib import AAAA, EDNS0, OPCODE, PTR, QTYPE, RCODE, RR, SRV, A, DNSError, DNSRecord
from dnslib.label import DNSLabelError

from afterswarm.core.dns import lookup
from afterswarm.core.dns.lookup import Answer, Asker, Book, Record

LONGEST = 253  # bytes of a name
ROOM = 512  # bytes of a datagram for who does not say more
ROOM_AT_MOST = 4096
_WEIGHT = 1


def read(question: bytes) -> DNSRecord | None:
    """`None` for what is no question, or not one."""
    try:
        record = DNSRecord.parse(question)
    except (DNSError, DNSLabelError):
        return None
    if record.header.qr or record.header.opcode != OPCODE.QUERY or len(record.questions) != 1:
        return None
    return record if len(record.q.qname) <= LONGEST else None


def known(book: Book, asker: Asker | None, record: DNSRecord, turn: int, *, stream: bool) -> bytes | None:
    """What can be said without asking anybody; `None`: somebody upstream may know. `turn` decides who comes first."""
    if asker is None:
        return failure(record, RCODE.REFUSED)
    found = book.answer(asker, str(record.q.qname), record.q.qtype)
    if found is not None:
        try:
            return _packed(record, found, turn, stream=stream)
        except DNSLabelError:  # it is longer than DNS can say
            return failure(record, RCODE.SERVFAIL)
    return None if asker.outside else failure(record, RCODE.SERVFAIL)


def failure(record: DNSRecord, code: int) -> bytes:
    reply = record.reply(ra=1, aa=0)
    reply.header.rcode = code
    return bytes(reply.pack())


def _packed(record: DNSRecord, found: Answer, turn: int, *, stream: bool) -> bytes:
    said = [extra.rclass for extra in record.ar if extra.rtype == QTYPE.OPT]
    room = min(max([ROOM, *said]), ROOM_AT_MOST)
    start = turn % max(len(found.records), 1)
    records = found.records[start:] + found.records[:start]
    packed = _reply(record, found, records, found.extra, bool(said))
    if stream or len(packed) <= room:
        return packed
    packed = _reply(record, found, records, (), bool(said))  # who wants the addresses asks for them
    while len(packed) > room:  # the first few will do for whoever does not ask again by TCP
        records = records[: len(records) - 1 - (len(packed) - room) // 64]
        packed = _reply(record, found, records, (), bool(said), cut=True)
    return packed


def _reply(
    record: DNSRecord,
    found: Answer,
    records: tuple[Record, ...],
    extra: tuple[Record, ...],
    edns: bool,  # noqa: FBT001
    *,
    cut: bool = False,
) -> bytes:
    reply = record.reply(ra=1, aa=1)
    reply.header.tc = int(cut)
    if not found.exists:
        reply.header.rcode = RCODE.NXDOMAIN
    for each in records:
        reply.add_answer(_resource(each, record.q.qname))
    for each in extra:
        reply.add_ar(_resource(each, each.name.encode()))
    if edns:
        reply.add_ar(EDNS0(udp_len=ROOM_AT_MOST))
    return bytes(reply.pack())


def _resource(each: Record, name: object) -> RR:
    match each.kind:
        case lookup.A:
            data = A(each.value)
        case lookup.AAAA:
            data = AAAA(each.value)
        case lookup.SRV:
            data = SRV(0, _WEIGHT, each.port, each.value.encode())
        case _:
            data = PTR(each.value.encode())
    return RR(name, each.kind, rdata=data, ttl=0)
