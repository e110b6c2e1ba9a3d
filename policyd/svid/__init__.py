"""SPIFFE's documents as whoever verifies them sees them: X.509-SVIDs, JWT-SVIDs, bundles of keys.

Law: pure, and every MUST of the specifications is checked by code of ours, whoever made the document. Making
documents is not done here: the authority makes them, and checks them here before they leave.
"""
