"""The code that the Python servers share: everything except the way in which they wait for bytes.

Only that way differs between streams.py and protocols.py, and only that is to be compared. No
module in here uses a client's or a neighbour's socket.

    message.py     parsed lines and exact times
    records.py     the table of records, and the order of two records of one client
    neighbours.py  the other servers: records to send, received positions, the handshake
    proof.py       the proof that two servers know the same secret
    server.py      one server: answers commands, and floods updates
    dialling.py    connects to a neighbour again and again
    places.py      asks Google Places
    answers.py     cuts its answers
    logs.py        the log
    options.py     the command line
"""
