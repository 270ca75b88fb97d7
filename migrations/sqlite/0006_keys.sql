-- Nothing: see the step of this number for PostgreSQL. Here nobody inserts while somebody else removes.
SELECT 1;
