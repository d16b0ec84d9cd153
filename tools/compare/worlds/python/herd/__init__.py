"""What the Python servers share: everything but the way in which they wait for bytes.

streams.py and protocols.py differ in that alone, and only that is to be compared. Nothing in here touches a
client's or a neighbour's socket.

    message.py     what lines say, and exact times
    records.py     the table of positions, and the order of two records of one client
    neighbours.py  the other servers: what each has to be told, how far each was heard, and the words of the handshake
    proof.py       how two servers prove to each other that they know the secret
    server.py      one server: answers to commands, floods what they say
    dialling.py    connecting to a neighbour again and again
    places.py      asking Google Places
    answers.py     cutting what it says
    logs.py        the log
    options.py     the command line
"""
