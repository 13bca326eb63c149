"""Data modules, one per file.

Data come with an installed package, or are files on the disk (cifar10, image_folder, text_files);
nothing is downloaded.
"""
